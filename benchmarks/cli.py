"""The command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import kits, limits, markdown, micro, report, supervisor
from benchmarks.limits import Limits
from benchmarks.model import SUITES, Result, Row
from benchmarks.rows import ROWS, select
from benchmarks.runner import Options

DEFAULT_PEERS = ("numpy", "torch", "jax", "onnxruntime", "tinygrad")
MAIN_SUITES = ("design", "more")


def parser() -> argparse.ArgumentParser:
    """Names, peers, and what to write."""
    made = argparse.ArgumentParser(
        prog="dev.py bench",
        description="Measure this project and its peers in one run, on the same data, results compared.",
        epilog="suites: " + "; ".join(f"{name}: {what}" for name, what in SUITES.items()),
    )
    made.add_argument("names", nargs="*", metavar="NAME", help="rows, families or patterns (default: suites)")
    made.add_argument(
        "--suite", action="append", choices=[*SUITES, "all"], help=f"default {' and '.join(MAIN_SUITES)}"
    )
    made.add_argument("--peers", default=",".join(DEFAULT_PEERS), help="default %(default)s; '' for none")
    made.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default %(default)s)")
    made.add_argument(
        "--budget", type=float, default=20.0, help="seconds of steady state a cell (default %(default)s)"
    )
    made.add_argument("--timeout", type=float, default=600.0, help="seconds a row (default %(default)s)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    made.add_argument("--plot", type=Path, metavar="FILE", help="write a picture (needs matplotlib)")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write a page for documents")
    made.add_argument(
        "--profile", metavar="ROW", help="show the kernels of one row, with the share of each, and stop"
    )
    made.add_argument("--list", action="store_true", help="show the rows and stop")
    return made


def list_rows() -> None:
    """All rows with their suites."""
    for row in ROWS.values():
        print(f"{row.name:26}{row.suite:9}{row.what}")
    for name, what in micro.SCRIPTS.items():
        print(f"{name:26}{'micro':9}{what}")


def measure(
    chosen: Sequence[Row], kit_names: Sequence[str], options: argparse.Namespace, most: Limits | None
) -> list[Result]:
    """Every row in its own process; what was measured before an interrupt is kept."""
    results: list[Result] = []
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    careful = Options(options.rounds, options.budget)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(chosen))
        try:
            for row in chosen:
                progress.update(bar, description=row.name)
                results.append(supervisor.measure(row, kit_names, careful, options.timeout))
                if options.json:  # after every row: a long run that is killed has been worth something
                    report.save_json(results, options.json, most)
                progress.advance(bar)
        except KeyboardInterrupt:
            print("stopped; this was measured before:")
    return results


def show_profile(name: str, made: argparse.ArgumentParser) -> int:
    """Where the time of one row goes."""
    from benchmarks import profiling

    if name not in ROWS:
        made.error(f"there is no row {name!r}; --list shows them")
    profiling.show(ROWS[name], limits.measure())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 when a result of ours was wrong or failed, or 2 for names that do not exist."""
    made = parser()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = made.parse_args(given)
    if options.list:
        list_rows()
        return 0
    peers = [name for name in options.peers.split(",") if name]
    if unknown := [name for name in peers if name not in kits.NAMES or name == "tinycore"]:
        made.error(f"unknown peer {unknown[0]!r}; there are: {', '.join(kits.NAMES[1:])}")
    if options.rounds < 1:
        made.error("--rounds must be at least 1")
    suites = list(SUITES) if "all" in (options.suite or ()) else options.suite or list(MAIN_SUITES)
    scripts = [name for name in options.names if name in micro.SCRIPTS]
    names = [name for name in options.names if name not in micro.SCRIPTS]
    if not options.names and "micro" in suites:
        scripts = list(micro.SCRIPTS)
    try:
        chosen = [] if scripts and not names and options.names else select(names, suites)
    except KeyError as unknown_name:
        made.error(f"no row fits {unknown_name}; --list shows them")
    if options.profile:
        return show_profile(options.profile, made)
    most = limits.measure() if any(row.operations or row.traffic for row in chosen) else None
    results = measure(chosen, ["tinycore", *peers], options, most) if chosen else []
    if results:
        report.show(results, ["tinycore", *peers], most)
    if options.plot and not report.save_plot(results, ["tinycore", *peers], options.plot):
        print("no plot: matplotlib is not installed (pip install -r requirements-bench.txt)")
    if options.markdown:
        markdown.save(results, options.markdown, shlex.join(["python3", "dev.py", "bench", *given]), most)
    status = micro.run(scripts) if scripts else 0
    wrong = any(
        cell.failure or cell.right is False for r in results for cell in r.cells if cell.kit == "tinycore"
    )
    return max(status, int(wrong or any(result.failure for result in results)))
