"""Results as a text table, as JSON, as a plot."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.limits import Limits, describe
from benchmarks.model import Cell, Result
from benchmarks.rows import ROWS
from benchmarks.runner import BASE

DISTRIBUTIONS = ("tinycore", "numpy", "torch", "jax", "onnxruntime", "tinygrad")


def duration(seconds: float | None) -> str:
    """Three digits with a unit.

    >>> duration(0.00123), duration(2.5), duration(None)
    ('1.23 ms', '2.50 s', '')
    """
    if seconds is None:
        return ""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            value = seconds * factor
            return f"{value:.{max(0, 2 - int(math.log10(max(value, 1))))}f} {unit}"
    raise AssertionError


def _cell(cell: Cell | None, figure: str, best_peer: bool) -> str:
    if cell is None:
        return ""
    if cell.failure is not None:
        return "[red]failed[/]"
    value = getattr(cell, figure)
    text = duration(value) if figure != "grown_bytes" else "" if value is None else f"{value / 1e6:.1f} MB"
    if figure == "median" and cell.best is not None:
        text += f" [dim]({duration(cell.best)})[/]"
    if best_peer:
        text = f"[bold]{text}[/]"
    return text if cell.right is not False else f"{text} [red]wrong[/]"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    colour = "green" if value <= 1.05 else "yellow" if value <= 1.15 else "red"
    return f"[{colour}]{value:.2f}[/]"


def tables(results: Sequence[Result], kits: Sequence[str], limits: Limits | None = None) -> list[Table]:
    """Steady state with fresh outputs, with reused ones, first calls, and memory."""
    made = []
    for title, mode, figure in (
        ("steady state, fresh outputs: median (best)", "fresh", "median"),
        ("steady state, reused outputs (tinycore and tinygrad: captured): median (best)", "reused", "median"),
        ("first call, empty caches", "fresh", "first"),
        ("memory that the first call takes beyond data and weights", "fresh", "grown_bytes"),
    ):
        rows = [result for result in results if any(getattr(c, figure) is not None for c in result.cells)]
        if rows:
            made.append(_table(rows, kits, title, mode, figure, limits))
    return made


def of_limit(result: Result, mode: str, limits: Limits | None) -> str:
    """How near our best round comes to what the machine can do; empty where nothing is known."""
    value = None if limits is None else result.efficiency(limits, mode)
    return "" if value is None else f"{100 * value:.0f} %"


def _table(
    results: Sequence[Result], kits: Sequence[str], title: str, mode: str, figure: str, limits: Limits | None
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("row", no_wrap=True)
    for kit in kits:
        table.add_column(kit, justify="right", no_wrap=True)
    if figure != "grown_bytes":
        table.add_column("ours / best peer", justify="right")
    if figure == "median" and limits is not None:
        table.add_column("of the limit", justify="right")
    for result in results:
        cells = {kit: result.cell(kit, mode) for kit in kits}
        if figure != "median":  # where outputs are only reused, that call is the first one
            cells = {kit: cell or result.cell(kit, "reused") for kit, cell in cells.items()}
        peers = [
            value
            for kit, cell in cells.items()
            if kit != "tinycore" and cell and cell.right is not False
            if (value := getattr(cell, figure)) is not None
        ]
        texts = [
            _cell(cell, figure, bool(cell and peers and getattr(cell, figure) == min(peers)))
            for cell in cells.values()
        ]
        ratio = result.ratio(mode) if figure == "median" else None
        if figure == "first":
            ratio = result.ratio("fresh", "first") or result.ratio("reused", "first")
        last = [_ratio(ratio)] if figure != "grown_bytes" else []
        last += [of_limit(result, mode, limits)] if figure == "median" and limits is not None else []
        if any(texts):
            table.add_row(result.name, *texts, *last)
    return table


def notes(results: Sequence[Result]) -> list[str]:
    """What went wrong, and how sweeps grow."""
    lines = []
    for result in results:
        if result.failure:
            lines.append(f"{result.name}: {result.failure}")
        for cell in result.cells:
            if cell.failure:
                lines.append(f"{result.name}: {cell.kit} ({cell.mode}): {cell.failure}")
            elif cell.right is False:
                bound = f"{result.bound:.1e}" if result.bound is not None else "the tolerance"
                error = "another shape, or NaN" if cell.error is None else f"error {cell.error:.2e}"
                lines.append(f"{result.name}: {cell.kit} ({cell.mode}): {error}, bound {bound}")
    for family, points in _sweeps(results).items():
        for kit, (all_sizes, all_seconds) in points.items():
            start = sum(size < LEAST_GRAPH for size in all_sizes) if family.startswith("compile") else 0
            sizes, seconds = all_sizes[start:], all_seconds[start:]
            slope = log_slope(sizes, seconds)
            if slope is not None:
                lines.append(f"{family}: {kit} grows as size^{slope:.2f} from {sizes[0]} to {sizes[-1]}")
    return lines


def _sweeps(results: Sequence[Result]) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Family of a sweep -> kit -> sizes and seconds (steady state if there is one, else the first call)."""
    found: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for result in results:
        if result.size is None:
            continue
        family = result.name.rsplit(".", 1)[0]
        for kit in dict.fromkeys(cell.kit for cell in result.cells):
            cell = result.cell(kit, "reused") if any(c.samples for c in result.cells) else None
            cell = cell or result.cell(kit, "fresh")
            value = (cell.median or cell.first) if cell else None
            if value is not None:
                sizes, seconds = found.setdefault(family, {}).setdefault(kit, ([], []))
                sizes.append(result.size)
                seconds.append(value)
    return found


def log_slope(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The exponent of the power law that fits best; None for fewer than three points.

    >>> round(log_slope([10, 100, 1000], [1.0, 10.0, 100.0]), 3)
    1.0
    """
    if len(sizes) < 3:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


LEAST_GRAPH = 100
"""Graphs below this size cost what every first call costs; their growth says nothing."""


def kept(results: Sequence[Result], limits: Limits | None) -> list[str]:
    """How much of the efficiency of a row of the design its neighbours keep: of what the limits allow."""
    if limits is None:
        return []
    lines = []
    for result in results:
        base = ROWS.get(result.near or "")
        if base is None:
            continue
        compared = Result.of(base)
        compared.cells = [cell for cell in result.cells if cell.mode == BASE]
        ours, theirs = result.efficiency(limits), compared.efficiency(limits, BASE)
        if ours and theirs:
            mark = "" if ours >= KEPT * theirs else "  less than aimed at"
            lines.append(f"{result.name} keeps {100 * ours / theirs:.0f} % of {base.name}{mark}")
    return lines


KEPT = 0.8
"""What neighbouring shapes should keep of the efficiency."""


def show(results: Sequence[Result], kits: Sequence[str], limits: Limits | None = None) -> None:
    """Print everything."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables(results, kits, limits):
        console.print(table)
    if limits is not None:
        console.print(describe(limits))
    steady = [ratio for result in results if (ratio := result.ratio("reused")) is not None]
    if steady:
        console.print(
            f"{sum(ratio <= 1.05 for ratio in steady)} of {len(steady)} rows tie with or beat the best peer "
            f"in steady state; the worst ratio is {max(steady):.2f}"
        )
    for line in [*kept(results, limits), *notes(results)]:
        console.print(line, highlight=False, markup=False)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        load: list[float] | None = list(os.getloadavg())
    except OSError:  # not on every system
        load = None
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": load,
        "versions": versions,
    }


def save_json(results: Sequence[Result], path: Path, limits: Limits | None = None) -> None:
    """Everything that was measured, and on what."""
    found = None if limits is None else asdict(limits)
    content = {"machine": machine(), "limits": found, "rows": [result.as_json() for result in results]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_plot(results: Sequence[Result], kits: Sequence[str], path: Path) -> bool:
    """Ratios to ours as bars, sweeps as lines; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    plain = [result for result in results if result.size is None and result.cells]
    sweeps = _sweeps(results)
    count = bool(plain) + len(sweeps)
    figure = Figure(figsize=(9, 0.3 * len(plain) * bool(plain) + 3.5 * max(1, count)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(max(1, count), 1))
    if plain:
        _bars(axes[0], plain, kits)
    for place, (family, points) in zip(axes[bool(plain) :], sweeps.items(), strict=True):
        for kit, (sizes, seconds) in points.items():
            place.loglog(sizes, seconds, marker="o", label=kit, color=_colour(kit, kits))
        place.set(title=family, xlabel="size", ylabel="seconds")
        place.legend()
    figure.savefig(path, dpi=120)
    return True


def _colour(kit: str, kits: Sequence[str]) -> str:
    """One colour a library in all parts of the picture."""
    return f"C{list(kits).index(kit) % 10}" if kit in kits else "black"


def _bars(axes: Any, results: Sequence[Result], kits: Sequence[str]) -> None:
    """Steady-state medians, a group of bars a row."""
    height = 0.8 / max(1, len(kits))
    for number, kit in enumerate(kits):
        values = []
        for result in results:
            cell = result.cell(kit, "reused") or result.cell(kit, "fresh")
            values.append((cell.median or 0.0) * 1e3 if cell else 0.0)
        axes.barh(
            [k + number * height for k in range(len(results))],
            values,
            height,
            label=kit,
            color=_colour(kit, kits),
        )
    axes.set(xscale="log", xlabel="ms, median", title="steady state")
    axes.set_yticks([k + 0.4 for k in range(len(results))], [result.name for result in results])
    axes.invert_yaxis()
    axes.legend()
