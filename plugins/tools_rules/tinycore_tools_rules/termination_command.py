"""`tinycore rules termination`: an order for all that runs to a normal form, or the rules that need ``@grows``."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tinycore.cli.output import print_json
from tinycore.rules import syntax as s
from tinycore_tools_rules.driven import Driven, drive
from tinycore_tools_rules.orders import Loop, Open, Orientation, loops_of, orient
from tinycore_tools_rules.parallel import watched
from tinycore_tools_rules.sources import Source, Unit, open_sources

NEWLINE = "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--order", action="store_true", help="print the weights and the precedence that were found"
    )
    parser.add_argument(
        "--graphs",
        type=int,
        default=5,
        metavar="N",
        help="run each rule that no order covers on N random graphs that it matches (default 5)",
    )
    parser.add_argument("--trusted", action="store_true", help="list the rules whose results natives make")
    parser.add_argument("--grows", action="store_true", help="list the rules that say @grows, and why")


def run(arguments: argparse.Namespace) -> int:
    """Orient the rules of everything that runs to a normal form, and run what has no order."""
    loops = [(source, loop) for source in open_sources(arguments.files) for loop in loops_of(source.module)]
    work = (_examined(source, loop, arguments.graphs) for source, loop in loops)
    examined = list(watched(work, len(loops), "ordering"))
    found = [item for item, _ in examined]
    if arguments.json:
        print_json([_data(item, driven) for item, driven in examined])
    else:
        needed = {
            unit.identity for item in found for unit in item.grows if unit not in item.needless
        }  # in one pass or another
        for item, driven in examined:
            print("\n".join(_lines(item, driven, arguments, needed)))
    return 1 if any(item.open for item in found) else 0


def _examined(source: Source, loop: Loop, graphs: int) -> tuple[Orientation, list[Driven]]:
    found = orient(f"{source.name}:{loop.name}", loop.rows, source.name)
    unproved = [*found.grows, *(unit for unit, _ in found.trusted)] if graphs else []
    driven = list(drive(loop.run, unproved, graphs))
    loops = [
        Open(item.unit, f"a graph that it matches has no end:\n{item.loop}") for item in driven if item.loop
    ]
    return dataclasses.replace(found, open=(*found.open, *loops)), driven


def reason_of(unit: Unit) -> str:
    """What ``@grows("...")`` says, on the rule or on its group."""
    note = unit.annotation("grows")
    return " ".join(str(part.value) for part in note.arguments if isinstance(part, s.Text)) if note else ""


def _data(item: Orientation, driven: Sequence[Driven]) -> dict[str, Any]:
    def named(unit: Unit) -> dict[str, str]:
        return {"rule": unit.identity, "where": unit.where}

    return {
        "stage": item.name,
        "kind": item.kind,
        "oriented": [unit.identity for unit in item.oriented],
        "grows": [{**named(unit), "reason": reason_of(unit)} for unit in item.grows],
        "needless": [named(unit) for unit in item.needless],
        "trusted": [{**named(unit), "native": native} for unit, native in item.trusted],
        "open": [
            {
                **named(each.unit),
                "reason": each.reason,
                "against": [named(unit) for unit in each.against],
            }
            for each in item.open
        ],
        "driven": {each.unit.identity: each.graphs for each in driven},
        "weights": dict(item.weights),
        "precedence": list(item.precedence),
    }


def _lines(
    item: Orientation, driven: Sequence[Driven], arguments: argparse.Namespace, needed: set[str]
) -> Iterator[str]:
    parts = [f"{_count(item.oriented, 'rule')} {_verb(item.oriented, 'gets', 'get')} smaller"]
    parts += [f"{len(item.grows)} {_verb(item.grows, 'says', 'say')} @grows"] if item.grows else []
    parts += [f"{len(item.trusted)} {_verb(item.trusted)} made by natives"] if item.trusted else []
    parts += [f"{len(item.open)} {_verb(item.open)} open"] if item.open else []
    tried = [each for each in driven if each.graphs]
    parts += (
        [f"{len(tried)} without an order were run on {sum(each.graphs for each in tried)} graphs"]
        if tried
        else []
    )
    yield f"{item.name}: {', '.join(parts)} ({item.kind} order)"
    for first, *others in _by_place(item.open):
        more = f" (and {_count(others, 'more form')} of it)" if others else ""
        yield f"  {first.unit.where}: {first.unit.name}{more}: {first.reason.replace(NEWLINE, NEWLINE + '    ')}"
        yield from (f"    {unit.where}: {unit.name}" for unit in first.against)
    if item.open:
        yield "  hint: make results smaller or guards stricter; @grows says that fuel is to keep a rule in check"
    for unit in item.needless:
        if unit.identity not in needed:
            yield f"  {unit.where}: {unit.name}: @grows is not needed: its result is smaller"
    if arguments.grows:
        yield from (f"  {unit.where}: {unit.name}: {reason_of(unit) or '@grows'}" for unit in item.grows)
    if arguments.trusted:
        yield from (f"  {unit.where}: {unit.name}: native {native}" for unit, native in item.trusted)
    if arguments.order:
        yield "  precedence: " + " > ".join(item.precedence)
        yield "  weights: " + ", ".join(f"{symbol} {weight}" for symbol, weight in item.weights.items())


def _count(items: Sequence[object], word: str) -> str:
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"


def _verb(items: Sequence[object], one: str = "is", more: str = "are") -> str:
    return one if len(items) == 1 else more


def _by_place(found: Sequence[Open]) -> list[list[Open]]:
    """Rules of ``for`` blocks that stand at one place, together."""
    places: dict[str, list[Open]] = {}
    for each in found:
        places.setdefault(each.unit.where, []).append(each)
    return list(places.values())
