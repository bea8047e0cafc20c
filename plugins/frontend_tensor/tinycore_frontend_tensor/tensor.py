"""The class `Tensor`: all layers together."""

from __future__ import annotations

from tinycore_frontend_tensor.differentiation import Differentiation


class Tensor(Differentiation):
    """A lazy n-dimensional array, with PyTorch's names and numpy's broadcasting.

    Operations build a graph; nothing runs until the values are needed (`realize`, `numpy`, `item`, `tolist`,
    printing a stored tensor), and then everything that is needed runs as few fused kernels.

    A tensor is a value: assigning to one in place never changes another, also not one that was computed from
    it before. See `Conversion.__init__` for the arguments.

    >>> from tinycore import Tensor
    >>> a = Tensor([[1.0, -2.0], [3.0, 4.0]])
    >>> (a @ a).relu().sum().item()
    25.0
    """

    __slots__ = ()
