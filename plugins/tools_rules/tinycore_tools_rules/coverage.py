"""Which rules a workload used: figures, and the files as a page in which every rule is marked."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinycore.rules.module import Code
from tinycore_tools_rules.sources import Source


@dataclass(frozen=True, slots=True)
class Line:
    """One rule as it is written; one in a ``for`` block stands for several.

    Attributes
    ----------
    group, name, line: of the rule.
    counts: how often it answered, by name: ``same[MAX]``.
    """

    group: str
    name: str
    line: int
    counts: dict[str, int]

    @property
    def count(self) -> int:
        """How often it answered, in all its forms."""
        return sum(self.counts.values())

    @property
    def state(self) -> str:
        """fired, partly (some of its forms never did), or missed."""
        if not self.count:
            return "missed"
        return "fired" if all(self.counts.values()) else "partly"


@dataclass(frozen=True, slots=True)
class Covered:
    """One file: its rules in the order of their lines."""

    name: str
    path: str
    lines: tuple[Line, ...]

    @property
    def fired(self) -> int:
        """Rules that answered at least once."""
        return sum(line.count > 0 for line in self.lines)


def measure(files: Sequence[tuple[Source, Code]], counters: Sequence[Counter[int]]) -> list[Covered]:
    """Counts by rule number to counts by line."""
    found = []
    for (source, code), counter in zip(files, counters, strict=True):
        lines: dict[tuple[str, int], Line] = {}
        for number, rule in enumerate(code.rules):
            name = rule.name.partition("[")[0]
            line = lines.setdefault((rule.group, rule.line), Line(rule.group, name, rule.line, {}))
            line.counts[rule.name] = line.counts.get(rule.name, 0) + counter[number]
        ordered = tuple(sorted(lines.values(), key=lambda line: line.line))
        found.append(Covered(source.name, source.path, ordered))
    return found


def percent(files: Sequence[Covered]) -> float:
    """The share of rules that answered, in percent; 100 when there is no rule."""
    total = sum(len(file.lines) for file in files)
    return 100.0 * sum(file.fired for file in files) / total if total else 100.0


_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1f2328; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { font: 12.5px/1.45 ui-monospace, monospace; border: 1px solid #d1d9e0; border-radius: 6px; padding: .5rem 0;
      overflow-x: auto; }
pre span.row { display: block; white-space: pre; padding: 0 .8rem; border-left: 4px solid transparent; }
pre span.fired { background: #e6f6ea; border-color: #2da44e; }
pre span.partly { background: #fdf4d8; border-color: #bf8700; }
pre span.missed { background: #fdecea; border-color: #cf222e; }
pre i { display: inline-block; width: 6em; text-align: right; margin-right: 1.2em; color: #59636e; font-style: normal; }
"""


def page(files: Sequence[Covered]) -> str:
    """One HTML page with everything in it."""
    rows = "".join(
        f'<tr><td><a href="#{html.escape(file.name)}">{html.escape(file.name)}</a></td>'
        f'<td class="number">{file.fired} of {len(file.lines)}</td>'
        f'<td class="number">{percent([file]):.0f} %</td></tr>\n'
        for file in files
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Rule coverage</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>Rule coverage: {percent(files):.1f} %</h1>\n"
        "<p>Green: fired. Yellow: only for some values of its loop. Red: never. "
        "At the left: how often.</p>\n"
        '<table><tr><th>file</th><th class="number">rules that fired</th><th class="number">share</th></tr>\n'
        f"{rows}</table>\n" + "".join(map(_annotated, files)) + "</body></html>\n"
    )


def _annotated(file: Covered) -> str:
    marks = {line.line: line for line in file.lines}
    rows: list[str] = []
    for number, text in enumerate(Path(file.path).read_text(encoding="utf-8").splitlines(), 1):
        line = marks.get(number)
        if line is None:
            rows.append(f'<span class="row"><i></i>{html.escape(text)}</span>')
            continue
        never = [name for name, count in line.counts.items() if not count]
        title = f' title="never: {html.escape(", ".join(never))}"' if never and line.count else ""
        rows.append(f'<span class="row {line.state}"{title}><i>{line.count}</i>{html.escape(text)}</span>')
    name = html.escape(file.name)
    return f'<h2 id="{name}">{name}</h2>\n<pre>{"".join(rows)}</pre>\n'
