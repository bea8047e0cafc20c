"""What is measured: rows, the data that they run on, and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.limits import Limits


@dataclass(frozen=True, slots=True)
class Position:
    """An argument that is a place in a sequence: data that a captured program must not be tied to."""

    value: int
    most: int


Arrays = tuple[Any, ...]
"""Arguments: arrays, and positions."""
Compute = Callable[..., Any]
"""`compute(kit, *arguments)` for plain rows, `compute(kit, model, *arguments)` for rows with a model."""

EVERY_KIT = ("tinycore", "numpy", "torch", "torch.compile", "jax", "tinygrad")
SUITES = {
    "design": "the table of the design, section 6",
    "more": "other dtypes, odd sizes, other ops, a transformer block, decoding",
    "neighbours": "shapes beside those of the design: one more or less, other batches, odd channels",
    "sweep": "how time grows with the size of a matmul",
    "compile": "how the first call grows with the size of a graph",
    "micro": "the project's own small costs: interning, rewriting, launching",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: one computation, which every kit runs on the same arguments.

    Parameters
    ----------
    name: ``family.variant``, what is typed on the command line.
    what: shown in the table.
    arguments: makes the arguments from a generator.
    compute: the computation, written once over a kit. With numpy's kit and float64 it is the reference, too.
    into: the same with `out=`, for the kits that can write into an array that is given.
    model: makes the model from a kit's `nn`; its weights are random and the same for all kits.
    reference: another reference than `compute` in float64: `reference(model, *arguments)`.
    kits: the libraries that can run it.
    tolerance: the greatest error, relative to the greatest magnitude, that any kit is forgiven.
    calls: how many first calls are compared (a training step changes its weights).
    size: the number on the x axis of a sweep.
    operations: arithmetic operations, for GFLOP/s.
    traffic: bytes that have to move, for GB/s.
    width: bytes of the numbers that it computes with.
    near: the row of the design that this one is a neighbour of.
    steady: whether steady state is measured, or the first call only.
    training, adam: whether it is a training step, by SGD or by Adam.
    fresh: whether the output is also allocated anew by tinycore; not where a whole network is captured.
    """

    name: str
    what: str
    suite: str
    arguments: Callable[[np.random.Generator], Arrays]
    compute: Compute
    into: Compute | None = None
    model: Callable[[Any], Any] | None = None
    reference: Compute | None = None
    kits: tuple[str, ...] = EVERY_KIT
    tolerance: float = 1e-4
    calls: int = 1
    size: int | None = None
    operations: float = 0.0
    traffic: float = 0.0
    width: int = 4
    near: str | None = None
    steady: bool = True
    fresh: bool = True
    training: bool = False
    adam: bool = False

    @property
    def family(self) -> str:
        """The first part of the name."""
        return self.name.split(".")[0]


@dataclass
class Cell:
    """One kit and mode (``fresh`` or ``reused`` outputs) of a row; times in seconds."""

    kit: str
    mode: str
    first: float | None = None
    samples: list[float] = field(default_factory=list)
    error: float | None = None
    """Greatest difference from the reference, relative to the reference's greatest magnitude."""
    right: bool | None = None
    failure: str | None = None
    peak_bytes: int | None = None
    """Most resident memory of the process during the first call; None where the system does not tell."""
    grown_bytes: int | None = None
    """The same beyond what it was before: data and weights excluded, outputs and scratch included."""

    @property
    def median(self) -> float | None:
        """The middle of the rounds."""
        return float(np.median(self.samples)) if self.samples else None

    @property
    def best(self) -> float | None:
        """The fastest round."""
        return min(self.samples) if self.samples else None

    def as_json(self) -> dict[str, Any]:
        """Everything, with the derived figures."""
        error = (
            self.error if self.error is None or math.isfinite(self.error) else None
        )  # JSON has no infinity
        return {**asdict(self), "error": error, "median": self.median, "best": self.best}


@dataclass
class Result:
    """A measured row."""

    name: str
    what: str
    suite: str
    size: int | None = None
    operations: float = 0.0
    traffic: float = 0.0
    width: int = 4
    near: str | None = None
    bound: float | None = None
    cells: list[Cell] = field(default_factory=list)
    failure: str | None = None
    """What ended the row before it was through: a crash, a timeout."""

    @classmethod
    def of(cls, row: Row) -> Result:
        """An empty result."""
        return cls(row.name, row.what, row.suite, row.size, row.operations, row.traffic, row.width, row.near)

    def cell(self, kit: str, mode: str) -> Cell | None:
        """The cell of a kit and mode."""
        return next((cell for cell in self.cells if (cell.kit, cell.mode) == (kit, mode)), None)

    def ratio(self, mode: str, figure: str = "median") -> float | None:
        """Ours over the best peer, for outputs fresh or reused; below 1 we are faster.

        For reused outputs a peer that cannot reuse counts with what it has. Cells with wrong results and
        failures do not count.
        """
        ours = self.cell("tinycore", mode)
        mine = _figure(ours, figure)
        theirs = []
        for kit in {cell.kit for cell in self.cells} - {"tinycore"}:
            found = _figure(self.cell(kit, mode), figure)
            if found is None and mode == "reused":
                found = _figure(self.cell(kit, "fresh"), figure)
            if found is not None:
                theirs.append(found)
        return mine / min(theirs) if mine is not None and theirs else None

    def efficiency(self, limits: Limits, mode: str | None = None) -> float | None:
        """The least time that the machine's limits allow over our best; of reused outputs if there are any."""
        cell = self.cell("tinycore", mode or "reused") or (None if mode else self.cell("tinycore", "fresh"))
        seconds = _figure(cell, "best")
        least = limits.seconds(self.operations, self.traffic, self.width)
        return least / seconds if least and seconds else None

    def as_json(self) -> dict[str, Any]:
        """Everything, with the derived figures."""
        return {
            **{name: getattr(self, name) for name in _RESULT_FIELDS},
            "cells": [cell.as_json() for cell in self.cells],
            "ratio": {mode: self.ratio(mode) for mode in ("fresh", "reused")},
            "ratio_first": self.ratio("fresh", "first") or self.ratio("reused", "first"),
        }

    @classmethod
    def from_json(cls, source: Mapping[str, Any]) -> Result:
        """The inverse of `as_json`."""
        cells = [Cell(**{name: cell[name] for name in Cell.__dataclass_fields__}) for cell in source["cells"]]
        return cls(**{name: source[name] for name in _RESULT_FIELDS}, cells=cells)


_RESULT_FIELDS = (
    "name", "what", "suite", "size", "operations", "traffic", "width", "near", "bound", "failure",
)  # fmt: skip


def _figure(cell: Cell | None, name: str) -> float | None:
    if cell is None or cell.failure is not None or cell.right is False:
        return None
    value: float | None = getattr(cell, name)
    return value
