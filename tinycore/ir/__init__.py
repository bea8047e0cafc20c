"""The intermediate representation: dtypes, the op table, UOp, shapes, bounds, verifier, text.

>>> from tinycore.ir import UOp, dtypes, ops
>>> a = UOp(ops.BUFFER, dtypes.float32, (), (1, (4, 8), "X"))
>>> (a + 1.0).shape
(4, 8)
"""

from tinycore.ir import bounds, dims, dtypes, shapes
from tinycore.ir import uop as _uop
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import Op, ops
from tinycore.ir.target import Capabilities, Dot, Target
from tinycore.ir.uop import Dim, Shape, UOp, substitute, toposort

_uop._facts.shape = shapes.infer
_uop._facts.bounds = bounds.infer
_uop._facts.ranges = bounds.free_ranges

__all__ = [
    "Capabilities",
    "DType",
    "Dim",
    "Dot",
    "Op",
    "Shape",
    "Target",
    "UOp",
    "bounds",
    "dims",
    "dtypes",
    "ops",
    "shapes",
    "substitute",
    "toposort",
]
