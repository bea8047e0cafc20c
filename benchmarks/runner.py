"""Runs one row in this process: data, reference, first calls, interleaved rounds, comparison."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks import memory
from benchmarks.kits import Kit, NotSupported, Thunk, put
from benchmarks.kits.numpy_kit import ArrayKit
from benchmarks.model import Cell, Position, Result, Row

ROUND_SECONDS = 0.02
"""A round repeats a call until it took about so long; its sample is the mean."""
SETTLE_SECONDS = 0.1
"""Before a library's turn: the idle threads of the one before spin for tens of milliseconds, on the same cores."""
MOST_REPEATS = 1000
PEER_FACTOR = 4.0
"""How much worse than the worst right peer our error may be: orders of summation differ."""
SEED = 1998
BASE = "base"
"""The mode of a cell in which the row that this one is near takes part."""
RATE = 0.01
"""The learning rate of training rows."""


@dataclass(frozen=True, slots=True)
class Options:
    """How carefully to measure.

    `budget` seconds of steady state a cell: when they are used up, the cell has fewer rounds.
    """

    rounds: int = 7
    budget: float = 20.0


@dataclass
class _Entry:
    """A cell that runs."""

    cell: Cell
    kit: Kit
    thunk: Thunk
    spent: float = 0.0
    last: Any = None


def layers_of(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers of a model (what has a `weight`) by their paths; models are objects of `benchmarks`."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, (list, tuple)):
            for place, part in enumerate(value):
                yield from walk(part, f"{path}.{place}")
        elif type(value).__module__.startswith("benchmarks.rows"):
            for name, part in vars(value).items():
                yield from walk(part, f"{path}.{name}")
        elif hasattr(value, "weight"):
            yield path[1:], value

    return walk(model, "")


_WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def random_weights(row: Row) -> dict[str, np.ndarray]:
    """The same weights for every kit: scaled so that activations keep their size."""
    assert row.model is not None
    generator = np.random.default_rng(SEED)
    found: dict[str, np.ndarray] = {}
    for path, layer in layers_of(row.model(ArrayKit())):
        for name in _WEIGHTS:
            known = getattr(layer, name, None)
            if known is None:
                continue
            values = generator.standard_normal(known.shape, np.float32)
            if name == "weight" and known.ndim > 1:
                values *= np.float32(min(1.0, (2 / np.prod(known.shape[1:])) ** 0.5))
            elif name in ("weight", "running_var"):
                values = 1 + np.abs(values) * np.float32(0.1)
            else:
                values *= np.float32(0.1)
            found[f"{path}.{name}"] = values
    return found


def _function(row: Row, kit: Any, weights: Mapping[str, np.ndarray] | None) -> Callable[..., Any]:
    """The row's computation for a kit, with its own model."""
    if row.model is None or weights is None:
        return lambda *arguments: row.compute(kit, *arguments)
    model = row.model(kit)
    for path, layer in layers_of(model):
        for name in _WEIGHTS:
            if getattr(layer, name, None) is not None:
                kit.assign(layer, name, weights[f"{path}.{name}"])
    if row.training:
        step: Callable[..., Any] = kit.trainer(
            [layer for _, layer in layers_of(model)],
            lambda *given: row.compute(kit, model, *given),
            RATE,
            row.adam,
        )
        return step
    return lambda *arguments: row.compute(kit, model, *arguments)


def reference_of(row: Row, arguments: Sequence[Any], weights: Mapping[str, np.ndarray] | None) -> np.ndarray:
    """What numpy finds in float64; of rows that change their state, the results of the first calls."""
    kit = ArrayKit()
    wide = [array.value if isinstance(array, Position) else array.astype(np.float64) for array in arguments]
    model = None
    if row.model is not None and weights is not None:
        model = row.model(kit)
        for path, layer in layers_of(model):
            for name in _WEIGHTS:
                if getattr(layer, name, None) is not None:
                    setattr(layer, name, weights[f"{path}.{name}"].astype(np.float64))
    compute = row.reference or row.compute
    before = (kit,) if model is None else (kit, model)
    results = [kit.get(compute(*before, *wide)) for _ in range(row.calls)]
    return results[0] if row.calls == 1 else np.stack(results)


def error_of(found: np.ndarray, reference: np.ndarray) -> float:
    """The greatest difference over the reference's greatest magnitude; infinite for another shape or NaN."""
    if found.shape != reference.shape:
        return float("inf")
    if not reference.size:
        return 0.0
    difference = float(np.max(np.abs(found - reference)))
    scale = float(np.max(np.abs(reference)))
    if not np.isfinite(difference):
        return float("inf")
    return difference / scale if scale else difference


def run_row(
    row: Row,
    kits: Sequence[Kit],
    options: Options,
    emit: Callable[[Result], None] = lambda result: None,
    broken: Mapping[str, str] = MappingProxyType({}),
    base: Row | None = None,
) -> Result:
    """Measure a row; `emit` sees what is known so far after every step (a crash loses no more than one).

    `broken` names kits that could not be loaded, and why. `base` is the row that this one is near: it takes part
    in our rounds, because only what is measured in turns can be compared.
    """
    result = Result.of(row)
    result.cells += [Cell(name, "fresh", failure=why) for name, why in broken.items() if name in row.kits]
    arguments, weights = _data(row)
    reference = reference_of(row, arguments, weights)
    entries: list[_Entry] = []
    for kit in kits:
        _wake(kit)
    for kit in sorted(kits, key=lambda kit: kit.name == "tinycore"):  # ours last: a crash keeps the peers
        if kit.name not in row.kits:
            continue
        for mode in ("fresh", "reused"):
            if kit.name == "tinycore" and mode == "fresh" and not row.fresh:
                continue
            entry = _prepare(row, kit, mode, arguments, weights, reference)
            if entry is not None:
                result.cells.append(entry.cell)
                if entry.cell.failure is None:
                    entries.append(entry)
            emit(result)
        if base is not None and kit.name == "tinycore":
            compared = _prepare(base, kit, BASE, *_data(base), None)
            if compared is not None:
                result.cells.append(compared.cell)
                entries += [] if compared.cell.failure else [compared]
    if row.steady:
        _rounds(entries, options, lambda: emit(result))
        if not row.training:
            # A replay may be wrong where the first call was right.
            for entry in [entry for entry in entries if entry.last is not None and entry.cell.mode != BASE]:
                error = error_of(entry.kit.get(entry.last), reference)
                entry.cell.error = max(entry.cell.error or 0.0, error)
    judge(result, row)
    emit(result)
    return result


def _data(row: Row) -> tuple[Sequence[Any], dict[str, np.ndarray] | None]:
    """A row's arguments, and the weights of its model."""
    arguments = row.arguments(np.random.default_rng(SEED))
    return arguments, random_weights(row) if row.model is not None else None


def _wake(kit: Kit) -> None:
    """First calls are measured in a process that is up: compilers loaded, workers started."""
    with contextlib.suppress(Exception):  # a library that cannot even do this fails in its cells
        given = [kit.put(np.ones(3, np.float32))]
        kit.fresh(lambda x: x * 3 + 1, given)()


def _prepare(
    row: Row,
    kit: Any,
    mode: str,
    arguments: Sequence[Any],
    weights: Mapping[str, np.ndarray] | None,
    reference: np.ndarray | None,
) -> _Entry | None:
    """The first calls of a cell. None where the kit cannot do it; the cell names what went wrong."""
    cell = Cell(kit.name, mode)
    entry = _Entry(cell, kit, lambda: None)
    try:
        given = [put(kit, array) for array in arguments]
        function = _function(row, kit, weights)
        if mode == "fresh" and row.training and kit.name in ("tinycore", "tinygrad"):
            return None
        into = None if row.into is None else lambda *rest: row.into(kit, *rest)  # type: ignore[misc]
        thunk = kit.fresh(function, given) if mode == "fresh" else kit.reused(function, into, given)
        if thunk is None:
            return None
        _first_calls(row, entry, thunk, reference)
    except NotSupported:
        return None
    except Exception as problem:  # noqa: BLE001  one library's failure is one cell of the table
        cell.failure = f"{type(problem).__name__}: {problem}".split("\n  hint:")[0][:500]
    return entry


def _first_calls(row: Row, entry: _Entry, thunk: Thunk, reference: np.ndarray | None) -> None:
    """The first call timed, its results compared, and the calls that capturing needs."""
    cell = entry.cell
    with memory.peak() as peak:
        start = time.perf_counter()
        first = thunk()
        cell.first = time.perf_counter() - start
    cell.peak_bytes, cell.grown_bytes = peak.total, peak.grown
    if reference is not None:
        found = [entry.kit.get(first)]
        del first  # a kept result would be copied by the next call
        for _ in range(row.calls - 1):
            found.append(entry.kit.get(thunk()))
        together = found[0] if row.calls == 1 else np.stack(found)
        cell.error = error_of(together, reference)
    for _ in range(3 if row.steady else 0):  # capturing takes two calls; the third is the first replay
        thunk()
    entry.thunk = thunk


def _rounds(entries: Sequence[_Entry], options: Options, done: Callable[[], None]) -> None:
    """Interleaved, every round in another order; a call before each sample brings caches and workers back."""
    order = random.Random(SEED)
    for _ in range(options.rounds):
        for entry in order.sample(list(entries), len(entries)):
            if entry.spent > options.budget and entry.cell.samples:
                continue
            time.sleep(SETTLE_SECONDS)
            begin = time.perf_counter()
            try:
                entry.last = None
                entry.thunk()
                once = time.perf_counter() - begin
                repeats = max(1, min(MOST_REPEATS, int(ROUND_SECONDS / max(once, 1e-7))))
                start = time.perf_counter()
                for _ in range(repeats):
                    entry.thunk()
                entry.cell.samples.append((time.perf_counter() - start) / repeats)
                entry.last = entry.thunk()
            except Exception as problem:  # noqa: BLE001  as above
                entry.cell.failure = f"{type(problem).__name__}: {problem}"[:500]
                entry.spent = float("inf")
            entry.spent += time.perf_counter() - begin
        done()


def judge(result: Result, row: Row) -> None:
    """A cell is right when its error is within the bound that the peers meet, and within the tolerance."""
    peers = [
        cell.error
        for cell in result.cells
        if cell.kit != "tinycore" and cell.error is not None and cell.error <= row.tolerance
    ]
    floor = 8 * float(np.finfo(np.float32).eps)
    result.bound = min(row.tolerance, max(PEER_FACTOR * max(peers), floor)) if peers else row.tolerance
    for cell in result.cells:
        limit = result.bound if cell.kit == "tinycore" else row.tolerance
        cell.right = None if cell.error is None else cell.error <= limit
