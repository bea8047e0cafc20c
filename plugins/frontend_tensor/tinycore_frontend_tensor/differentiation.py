"""`backward()` and `gradient()`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Self

from tinycore.errors import DTypeError, ShapeError, TinycoreError
from tinycore.ir import UOp, ops
from tinycore_frontend_tensor import graph, modes
from tinycore_frontend_tensor.autograd import gradient_of
from tinycore_frontend_tensor.core import live_tensors
from tinycore_frontend_tensor.functional import Functional
from tinycore_frontend_tensor.symbolic import merge


class Differentiation(Functional):
    """The methods of `Tensor` that differentiate."""

    __slots__ = ()

    def backward(self, gradient: Self | None = None) -> Self:
        """Add the gradient of this tensor to the `.grad` of every leaf that requires gradients.

        Parameters
        ----------
        gradient: the cotangent; may be left out for a tensor of one element.

        Raises TinycoreError when nothing here requires gradients, ShapeError for a missing or wrong
        cotangent.

        >>> from tinycore import Tensor
        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> _ = (x * x).sum().backward()
        >>> x.grad.tolist()
        [2.0, 4.0]
        """
        if not self.requires_grad:
            raise TinycoreError(
                "backward() of a tensor that does not require gradients",
                hint="make a leaf with requires_grad=True, and compute outside Tensor.no_grad()",
            )
        leaves = [
            t for t in live_tensors() if t.requires_grad and t.is_leaf and isinstance(t, Differentiation)
        ]
        found = gradient_of(self.uop, [leaf.uop for leaf in leaves], self._cotangent(gradient))
        for leaf, node in zip(leaves, found, strict=True):
            if node is not None:
                part = leaf._gradient_tensor(node, self, False)
                leaf.grad = part if leaf.grad is None else leaf.grad + part
        return self

    def gradient(
        self, *targets: Self, gradient: Self | None = None, create_graph: bool = False
    ) -> list[Self]:
        """The gradients with respect to any tensors that this one was computed from (zeros where it was not).

        With `create_graph` the gradients can be differentiated again.

        >>> from tinycore import Tensor
        >>> x = Tensor([3.0], requires_grad=True)
        >>> (x * x * x).sum().gradient(x)[0].tolist()
        [27.0]
        """
        if not self.dtype.is_float:
            raise DTypeError(f"gradient of a {self.dtype.name} tensor", hint="only floats have gradients")
        found = gradient_of(self.uop, [target.uop for target in targets], self._cotangent(gradient))
        return [
            target._gradient_tensor(target.uop.const_like(0) if node is None else node, self, create_graph)
            for target, node in zip(targets, found, strict=True)
        ]

    def _cotangent(self, given: Self | None) -> UOp:
        if given is None:
            if int(self.numel()) != 1:
                raise ShapeError(
                    f"backward() of a tensor of shape {graph.text(self.shape)}",
                    hint="reduce it to one element (.sum(), .mean()), or give the cotangent",
                )
            return self.uop.const_like(1.0)
        if given.uop.shape != self.uop.shape:
            raise ShapeError(
                f"backward(): a cotangent of shape {graph.text(given.shape)} for a tensor of shape "
                f"{graph.text(self.shape)}"
            )
        return given.uop.cast(self.dtype)

    def _gradient_tensor(self, node: UOp, source: Self, create_graph: bool) -> Self:
        """A gradient with respect to this tensor; it lives where this tensor lives."""
        with modes.record_gradients(create_graph):
            result = self._derive(node if create_graph else UOp(ops.DETACH, node.dtype, (node,)))
        result.bindings = merge((self.bindings, source.bindings))
        if create_graph:
            result.requires_grad, result.is_leaf = True, False
        return result

    # --- modes --------------------------------------------------------------------------------------------

    @staticmethod
    def no_grad() -> AbstractContextManager[None]:
        """``with Tensor.no_grad():`` results do not require gradients."""
        return modes.record_gradients(False)

    @staticmethod
    def enable_grad() -> AbstractContextManager[None]:
        """``with Tensor.enable_grad():`` undoes `no_grad` for a block."""
        return modes.record_gradients(True)

    @staticmethod
    def training(mode: bool = True) -> AbstractContextManager[None]:
        """``with Tensor.training():`` dropout and batch normalisation behave as in training."""
        return modes.training(mode)

    @staticmethod
    def is_training() -> bool:
        """Whether this is inside ``with Tensor.training():``."""
        return modes.is_training()
