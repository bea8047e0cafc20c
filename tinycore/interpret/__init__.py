"""The reference semantics: numpy executes UOps of any level. What it answers is what they mean.

>>> import numpy
>>> from tinycore.ir import UOp, dtypes, ops
>>> x = UOp(ops.BUFFER, dtypes.float32, (), (1, (2,), "D"))
>>> interpret([x + 1.0], {x: numpy.zeros(2, "float32")})[0].tolist()
[1.0, 1.0]
"""

from tinycore.interpret.kernel import interpret_kernel
from tinycore.interpret.program import interpret_program
from tinycore.interpret.tensor import CUSTOM, interpret

__all__ = ["CUSTOM", "interpret", "interpret_kernel", "interpret_program"]
