"""`tinycore rules termination`: an order for all that runs to a normal form, or the rules that need ``@grows``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from tinycore.cli.output import print_json
from tinycore.rules import syntax as s
from tinycore_tools_rules.orders import Open, Orientation, loops_of, orient
from tinycore_tools_rules.parallel import watched
from tinycore_tools_rules.sources import Unit, open_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "--order", action="store_true", help="print the weights and the precedence that were found"
    )
    parser.add_argument("--trusted", action="store_true", help="list the rules whose results natives make")
    parser.add_argument("--grows", action="store_true", help="list the rules that say @grows, and why")


def run(arguments: argparse.Namespace) -> int:
    """Orient the rules of everything that runs to a normal form."""
    loops = [
        (source, name, rows)
        for source in open_sources(arguments.files)
        for name, rows in loops_of(source.module)
    ]
    work = (orient(f"{source.name}:{name}", rows, source.name) for source, name, rows in loops)
    found = list(watched(work, len(loops), "ordering"))
    if arguments.json:
        print_json([_data(item) for item in found])
    else:
        needed = {
            unit.identity for item in found for unit in item.grows if unit not in item.needless
        }  # in one pass or another
        for item in found:
            print("\n".join(_lines(item, arguments, needed)))
    return 1 if any(item.open for item in found) else 0


def reason_of(unit: Unit) -> str:
    """What ``@grows("...")`` says, on the rule or on its group."""
    note = unit.annotation("grows")
    return " ".join(str(part.value) for part in note.arguments if isinstance(part, s.Text)) if note else ""


def _data(item: Orientation) -> dict[str, Any]:
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
        "weights": dict(item.weights),
        "precedence": list(item.precedence),
    }


def _lines(item: Orientation, arguments: argparse.Namespace, needed: set[str]) -> Iterator[str]:
    parts = [f"{_count(item.oriented, 'rule')} {_verb(item.oriented, 'gets', 'get')} smaller"]
    parts += [f"{len(item.grows)} {_verb(item.grows, 'says', 'say')} @grows"] if item.grows else []
    parts += [f"{len(item.trusted)} {_verb(item.trusted)} made by natives"] if item.trusted else []
    parts += [f"{len(item.open)} {_verb(item.open)} open"] if item.open else []
    yield f"{item.name}: {', '.join(parts)} ({item.kind} order)"
    for first, *others in _by_place(item.open):
        more = f" (and {_count(others, 'more form')} of it)" if others else ""
        yield f"  {first.unit.where}: {first.unit.name}{more}: {first.reason}"
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
