"""Comparing what a device answered with what the oracle expects, and a case that can be written down.

A `Case` is a graph and a seed for its data. Its repr is an expression that makes it again, so that a failure
found by hypothesis can be repeated in one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinycore.ir import dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import ops
from tinycore.ir.text import parse, print_graph
from tinycore.ir.uop import UOp, toposort
from tinycore.testing.oracle import Expected, expected

Array = NDArray[Any]
Runner = Callable[[Sequence[UOp], Mapping[UOp, Array]], Sequence[Array]]
"""Computes roots, given the elements of their BUFFERs."""


@dataclass(frozen=True, slots=True, repr=False)
class Case:
    """A graph to compute: its roots, and the seed that the elements of its buffers are made from.

    >>> x = UOp(ops.BUFFER, dtypes.int8, (), (0, (3,), "D"))
    >>> case = Case((x + x,), 7)
    >>> eval(repr(case), {"case": case_of}) == case
    True
    """

    roots: tuple[UOp, ...]
    seed: int

    def __repr__(self) -> str:
        return f"case({print_graph(UOp(ops.SINK, dtypes.void, self.roots))!r}, {self.seed})"

    def arrays(self) -> dict[UOp, Array]:
        """The elements of every BUFFER below the roots."""
        return {
            node: elements(node.dtype, _sizes(node), (self.seed, node.arg[0]))
            for node in toposort(self.roots)
            if node.op is ops.BUFFER
        }


def case_of(text: str, seed: int) -> Case:
    """The case whose repr this is."""
    return Case(parse(text).src, seed)


def _sizes(node: UOp) -> tuple[int, ...]:
    return tuple([dim for dim in node.shape if isinstance(dim, int)])


def elements(dtype: DType, shape: tuple[int, ...], seed: tuple[int, int]) -> Array:
    """Elements for a buffer: small numbers mostly, with limits, infinities and NaN under one seed of four."""
    random = np.random.default_rng(seed)
    wild = seed[0] % 4 == 3
    if dtype.kind == "bool":
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float:
        whole, broken = random.integers(-4, 5, shape), random.normal(size=shape)
        values = np.where(random.random(shape) < 0.6, whole, broken)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 1e-7, -3.4e38, 1.5, 255.0])
    else:
        values = random.integers(0 if dtype.kind == "uint" else -4, 6, shape).astype(np.float64)
        special = np.array([float(dtype.min), float(dtype.max) / 2, 127.0, 64.0, 31.0, 100.0])
    with np.errstate(all="ignore"):
        result = values.astype(dtype.numpy)
        if wild:
            chosen = random.choice(special, shape).astype(dtype.numpy)
            result = np.where(random.random(shape) < 0.25, chosen, result)
    return np.asarray(result)


def zero_sign_is_free(root: UOp) -> bool:
    """Whether the sign of zeros is unspecified somewhere below: MAX, MIN and reductions leave it open."""
    return any(
        (node.op in _FREE and node.dtype.is_float) or (node.op in _COMBINING and node.arg[0] in _FREE)
        for node in toposort((root,))
    )


_FREE = (ops.MAX, ops.MIN, ops.REDUCE)
_COMBINING = (ops.SCAN, ops.SCATTER)


def difference(root: UOp, want: Expected, got: Array) -> str | None:
    """What is wrong with an answer, or None.

    Bit for bit where the oracle's error is 0, except that all NaN are equal and that the sign of zero is
    ignored where `zero_sign_is_free`; within the error elsewhere; anything where the error is infinite.
    """
    values = want.values
    if got.dtype != values.dtype or got.shape != values.shape:
        return f"{got.dtype} {got.shape} instead of {values.dtype} {values.shape}"
    if values.dtype.kind not in "fV":
        wrong = (got != values) & np.isfinite(want.error)
    else:
        wide, mine = values.astype(np.float64), got.astype(np.float64)
        with np.errstate(all="ignore"):
            close = np.abs(wide - mine) <= want.error
        signs = zero_sign_is_free(root) | (want.error > 0) | (np.signbit(wide) == np.signbit(mine))
        right = ((wide == mine) & signs) | (np.isnan(wide) & np.isnan(mine)) | np.isinf(want.error)
        wrong = ~(right | (close & (want.error > 0)))
    if not wrong.any():
        return None
    place = tuple([int(axis[0]) for axis in np.nonzero(wrong)]) if wrong.ndim else ()
    return (
        f"{int(wrong.sum())} of {wrong.size} elements differ; element {place} is {got[place]!r} "
        f"instead of {values[place]!r} (error allowed: {float(want.error[place]):.3g})"
    )


def check(case: Case, run: Runner, name: str) -> None:
    """Compute a case and raise AssertionError, with a line that repeats it, where the answer is wrong.

    `name` is the device, as the repeating line calls it.
    """
    arrays = case.arrays()
    wanted = expected(case.roots, arrays)
    before = {node: array.copy() for node, array in arrays.items()}
    results = run(case.roots, arrays)
    for position, (root, want, got) in enumerate(zip(case.roots, wanted, results, strict=True)):
        problem = difference(root, want, np.asarray(got))
        if problem is not None:
            what = f"{name}, root {position} ({root.op.name}): {problem}"
            raise AssertionError(f"{what}\nto repeat it: {repeat(case, name)}")
    for node, array in arrays.items():
        if array.tobytes() != before[node].tobytes():
            raise AssertionError(f"{name} changed the array of {node!r}\nto repeat it: {repeat(case, name)}")


def repeat(case: Case, name: str) -> str:
    """The command that repeats a case on a device."""
    text = print_graph(UOp(ops.SINK, dtypes.void, case.roots))
    return f"python -m tinycore.testing {shlex.quote(name)} {case.seed} {shlex.quote(text)}"
