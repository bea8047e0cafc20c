"""Linear algebra: matrix products and einsum, as multiply and REDUCE.

Products of narrow floats are exact in float32 and summed there.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from tinycore.errors import ShapeError
from tinycore.ir import Shape, UOp, dtypes, ops
from tinycore_frontend_tensor import graph
from tinycore_frontend_tensor.ordering import Ordering


class LinearAlgebra(Ordering):
    """The methods of `Tensor` that contract axes."""

    __slots__ = ()

    def matmul(self, other: Any) -> Self:
        """The matrix product of the last two axes, batched over the others (numpy's rules for one axis)."""
        right = self._operand(other, "matmul")
        columns = right.uop
        rank = len(columns.shape)
        rows = graph.permute(columns, graph.swap(rank, -2, -1)) if rank > 1 else columns
        return self._derive(_product(self.uop, rows), right)

    __matmul__ = matmul

    def __rmatmul__(self, other: Any) -> Self:
        return self._operand(other, "matmul").matmul(self)

    def mm(self, other: Self) -> Self:
        """`matmul` of two matrices."""
        return self.matmul(other)

    bmm = mm

    def dot(self, other: Self) -> Self:
        """The sum of products of two vectors."""
        if self.ndim != 1 or other.ndim != 1:
            raise ShapeError(
                f"dot: shapes {graph.text(self.shape)} and {graph.text(other.shape)}",
                hint="dot takes two vectors; use matmul",
            )
        return self.matmul(other)

    def outer(self, other: Self) -> Self:
        """All products of two vectors."""
        return self.reshape(-1, 1) * other.reshape(1, -1)

    def linear(self, weight: Self, bias: Self | None = None) -> Self:
        """``x @ weight.T + bias``, with PyTorch's layout (outputs, inputs) of the weight."""
        node = _product(self.uop, weight.uop)
        if bias is None:
            return self._derive(node, weight)
        common = dtypes.promote(node.dtype, bias.uop.dtype)
        shape = graph.broadcast_shape(node.shape, bias.uop.shape, what="add")
        node, added = graph.broadcast(node.cast(common), shape), graph.broadcast(bias.uop.cast(common), shape)
        return self._derive(node.alu(ops.ADD, added), weight, bias)

    def trace(self) -> Self:
        """The sum of the diagonal of a matrix."""
        return self.diagonal().sum(-1)

    def diagonal(self) -> Self:
        """The diagonal of the last two axes."""
        if self.ndim < 2:
            raise ShapeError(f"diagonal of shape {graph.text(self.shape)}")
        rows, columns = (int(size) for size in self.shape[-2:])
        size = min(rows, columns)
        cut = self.shrink([None] * (self.ndim - 2) + [(0, size), (0, size)])
        flat = cut.reshape(*self.shape[:-2], size * size).pad([(0, 0)] * (self.ndim - 2) + [(0, size)])
        return (
            flat.reshape(*self.shape[:-2], size, size + 1)
            .shrink([None] * (self.ndim - 1) + [(0, 1)])
            .squeeze(-1)
        )

    @classmethod
    def einsum(cls, equation: str, *operands: Any) -> Self:
        """Einstein's summation: ``Tensor.einsum("bij,bjk->bik", a, b)``; ``...`` stands for any axes.

        Raises ShapeError where letters and axes do not fit.
        """
        tensors = (
            list(operands[0])
            if len(operands) == 1 and isinstance(operands[0], (list, tuple))
            else list(operands)
        )
        return _Einsum(equation, tensors).run()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Meeting:
    """How the operands of a matrix product come to the shape of all products, the summed axis last."""

    left: graph.Steps
    right: graph.Steps
    summed: int
    result: Shape


@functools.lru_cache(maxsize=1024)
def _meeting(a: Shape, rows: Shape) -> _Meeting:
    """Raises ShapeError for operands that do not fit; `rows` is the second with its last two axes exchanged."""
    if not a or not rows:
        raise ShapeError("matmul: a tensor without axes", hint="use * to scale")
    several = len(rows) > 1
    if a[-1] != rows[-1]:
        b = (*rows[:-2], rows[-1], rows[-2]) if several else rows
        raise ShapeError(
            f"matmul: shapes {graph.text(a)} and {graph.text(b)} do not fit",
            hint=f"the last axis of the first ({graph.text((a[-1],))[1:-2]}) must equal the "
            f"{'second to last' if several else 'only'} axis of the second "
            f"({graph.text((rows[-1],))[1:-2]}); transpose one with .mT?",
        )
    left = (*a[:-1], 1, a[-1]) if several else a
    right = (*rows[:-2], 1, *rows[-2:]) if several and len(a) > 1 else rows
    whole = graph.broadcast_shape(left, right, what="matmul (batch axes)")
    return _Meeting(
        graph.steps_of(a, lambda node: graph.broadcast(graph.reshape(node, left), whole)),
        graph.steps_of(rows, lambda node: graph.broadcast(graph.reshape(node, right), whole)),
        len(whole) - 1,
        whole[:-1],
    )


def _product(a: UOp, rows: UOp) -> UOp:
    """The sums of products of the last axes of both: of each row with each row, batched over other axes."""
    common = dtypes.promote(a.dtype, rows.dtype)
    wide = graph.ACCUMULATE.get(common, common)
    meeting = _meeting(a.shape, rows.shape)
    left = graph.follow(a.cast(wide), meeting.left)
    right = graph.follow(rows.cast(wide), meeting.right)
    summed = UOp(ops.REDUCE, wide, (left.alu(ops.MUL, right),), (ops.ADD, (meeting.summed,)))
    return graph.reshape(summed, meeting.result).cast(common)


class _Einsum:
    """One einsum: every operand is brought to the axes of all letters, multiplied and summed pair by pair."""

    def __init__(self, equation: str, tensors: Sequence[Any]) -> None:
        self.equation = equation.replace(" ", "")
        left, arrow, right = self.equation.partition("->")
        self.inputs = left.split(",")
        if len(self.inputs) != len(tensors):
            raise ShapeError(f"einsum {equation!r}: {len(self.inputs)} terms for {len(tensors)} tensors")
        self.tensors = tensors
        spare = [c for c in string.ascii_letters if c not in equation]
        hidden = 0
        for term, tensor in zip(self.inputs, tensors, strict=True):
            named = len(term.replace("...", ""))
            if "..." in term:
                hidden = max(hidden, tensor.ndim - named)
            if named > tensor.ndim or ("..." not in term and named != tensor.ndim):
                raise ShapeError(
                    f"einsum {equation!r}: term {term!r} for a tensor of shape {graph.text(tensor.shape)}",
                    hint="one letter an axis",
                )
        dots = "".join(spare[:hidden])
        self.inputs = [
            term.replace("...", dots[hidden - (t.ndim - len(term) + 3) :] if t.ndim - len(term) + 3 else "")
            for term, t in zip(self.inputs, tensors, strict=True)
        ]
        letters = "".join(self.inputs)
        self.output = (
            right.replace("...", dots)
            if arrow
            else dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots))
        )
        unknown = set(self.output) - set(letters)
        if unknown or len(set(self.output)) != len(self.output):
            raise ShapeError(
                f"einsum {equation!r}: the result names {self.output!r}",
                hint="each letter of the result must appear once there and in some operand",
            )

    def run(self) -> Any:
        result, have = self._prepared(0)
        for position in range(1, len(self.tensors)):
            right, names = self._prepared(position)
            later = set("".join(self.inputs[position + 1 :])) | set(self.output)
            result, have = self._pair(result, have, right, names, later)
        summed = [k for k, letter in enumerate(have) if letter not in self.output]
        if summed:
            result, have = _sum(result, summed), "".join(c for c in have if c in self.output)
        return result.permute([have.index(letter) for letter in self.output]) if have else result

    def _prepared(self, position: int) -> tuple[Any, str]:
        """An operand with repeated letters reduced to their diagonal."""
        tensor, term = self.tensors[position], self.inputs[position]
        for letter in dict.fromkeys(term):
            while term.count(letter) > 1:
                a = term.index(letter)
                b = term.index(letter, a + 1)
                if tensor.uop.shape[a] != tensor.uop.shape[b]:
                    raise ShapeError(
                        f"einsum {self.equation!r}: {letter} is {tensor.shape[a]} and {tensor.shape[b]}"
                    )
                rest = [k for k in range(tensor.ndim) if k not in (a, b)]
                tensor = tensor.permute([*rest, a, b]).diagonal()
                term = "".join(term[k] for k in rest) + letter
        return tensor, term

    def _pair(self, a: Any, first: str, b: Any, second: str, later: set[str]) -> tuple[Any, str]:
        letters = first + "".join(c for c in second if c not in first)
        letters = "".join(c for c in letters if c in later) + "".join(c for c in letters if c not in later)
        sizes: dict[str, Any] = {}
        for tensor, names in ((a, first), (b, second)):
            for size, letter in zip(tensor.uop.shape, names, strict=True):
                if sizes.setdefault(letter, size) != size:
                    if sizes[letter] != 1 and size != 1:
                        raise ShapeError(
                            f"einsum {self.equation!r}: {letter} is {sizes[letter]} and {size}",
                            hint="a letter stands for one size",
                        )
                    sizes[letter] = size if sizes[letter] == 1 else sizes[letter]
        spread = [self._spread(tensor, names, letters) for tensor, names in ((a, first), (b, second))]
        common = dtypes.promote(a.dtype, b.dtype)
        wide = graph.ACCUMULATE.get(common, common)
        product = spread[0].cast(wide) * spread[1].cast(wide)
        summed = [k for k, letter in enumerate(letters) if letter not in later]
        return _sum(product, summed).cast(common), "".join(c for c in letters if c in later)

    def _spread(self, tensor: Any, names: str, letters: str) -> Any:
        present = [letter for letter in letters if letter in names]
        ordered = tensor.permute([names.index(letter) for letter in present]) if present else tensor
        return ordered.reshape([ordered.shape[present.index(c)] if c in present else 1 for c in letters])


def _sum(tensor: Any, axes: Sequence[int]) -> Any:
    """A sum in the tensor's own dtype, integers too."""
    return tensor.sum(axes, dtype=tensor.dtype) if axes else tensor
