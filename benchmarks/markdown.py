"""Results as a Markdown page, for documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.limits import Limits, describe
from benchmarks.model import Result
from benchmarks.report import duration, kept, machine, notes, of_limit

HEAD = ("row", "what", "captured", "best peer", "ratio", "fresh", "best peer", "ratio", "of the limit")


def best_peer(result: Result, mode: str) -> str:
    """The fastest library beside this project, with its median; empty where none has a right result.

    A library that cannot reuse outputs counts with fresh ones, as in the ratio.
    """
    medians = []
    for kit in {cell.kit for cell in result.cells} - {"tinycore"}:
        cell = result.cell(kit, mode)
        if mode == "reused" and (cell is None or cell.median is None):
            cell = result.cell(kit, "fresh")
        if cell is not None and cell.median is not None and cell.right is not False:
            medians.append((cell.median, kit))
    if not medians:
        return ""
    median, kit = min(medians)
    return f"{duration(median)} {kit}"


def page(results: Sequence[Result], command: str, limits: Limits | None = None) -> str:
    """A heading, how it was measured, the table, and what is to be said about single rows."""
    found = machine()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Figures",
        "",
        f"Written by `{command}`. Medians of interleaved rounds in one run; how to read them is in",
        "[performance](performance.md). Judge the ratios: shared machines are noisy.",
        "",
        f"{found['system']} {found['machine']}, {found['cores']} cores, Python {found['python']}; {versions}.",
    ]
    if limits is not None:
        lines.append(f"Before the first row: {describe(limits)}.")
    lines += ["", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [f"| {' | '.join(_row(result, limits))} |" for result in results]
    rest = [*kept(results, limits), *notes(results)]
    lines += ["", *[f"- {line}" for line in rest]] if rest else []
    return "\n".join(lines) + "\n"


def _row(result: Result, limits: Limits | None) -> list[str]:
    cells = [result.name, result.what.replace("|", "\\|")]
    for mode in ("reused", "fresh"):
        ours, ratio = result.cell("tinycore", mode), result.ratio(mode)
        known = ours is not None and ours.median is not None
        cells += [duration(ours.median) if ours else "", best_peer(result, mode) if known else ""]
        cells.append("" if ratio is None else f"{ratio:.2f}")
    return [*cells, of_limit(result, "reused", limits)]


def save(results: Sequence[Result], path: Path, command: str, limits: Limits | None = None) -> None:
    """Write the page."""
    path.write_text(page(results, command, limits), encoding="utf-8")
