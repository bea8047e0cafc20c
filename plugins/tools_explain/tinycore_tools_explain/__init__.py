"""Shows every stage of an expression on its way to code, and which rules made it so.

>>> from tinycore import explain
>>> from tinycore.ir import UOp, dtypes, ops
>>> x = UOp(ops.BUFFER, dtypes.float32, (), (1 << 60, (4,), "INTERPRETER"))
>>> [kernel.why for kernel in explain(x + 1.0, device="INTERPRETER").kernels]
['its result was asked for']
"""

from tinycore_tools_explain.explain import Explanation, Kernel, Stage, explain, to_data
from tinycore_tools_explain.reasons import describe, reasons

__all__ = ["Explanation", "Kernel", "Stage", "describe", "explain", "reasons", "to_data"]
