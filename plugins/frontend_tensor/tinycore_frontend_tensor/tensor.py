"""The class."""

from tinycore_frontend_tensor.reduction import Reduction as Tensor

__all__ = ["Tensor"]
