"""Hostile rule files: texts made from the grammar, from its words, from broken core rules, and by hand.

`judge` takes one through parser, checker and generator. Anything but success or a clean error of the rule
language that names a line and a column of the file is a bug. As a program:

    python tests/rules/hostile.py --inputs 20000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lark

import tinycore
from tinycore.errors import RuleCheckError, RuleSyntaxError
from tinycore.ir.ops import TABLE
from tinycore.rules import cache, parse

CORE = sorted(Path(tinycore.__file__).parent.rglob("*.rules"))
LIMIT = 10.0
"""Seconds that one input may take, on a machine that does other things too."""

SAMPLES = {
    "OP": [*TABLE, "NOSUCHOP", "OP"],
    "TYPE": ["T", "U", "Int", "Float", "Index", "Bool", "Integral", "Binary", "Comparison", "Nothing"],
    "NAME": ["x", "y", "c", "one", "g", "bottom_up", "fixpoint", "top_down", "vmin", "vmax", "shape", "dtype",
             "len", "all", "fold", "int32", "float32", "target", "has", "const", "memo", "grows", "zip", "_x"],
    "NUMBER": ["0", "1", "2", "7", "0x1f", "1.5", "1e3", "inf", "nan", "18446744073709551616", "9" * 400, "1e999"],
    "STRING": ['""', '"a"', '"{x}"', '"{"', '"\\\\"', '"\\n"', '"{x|T}"', '"{{}}"'],
    "CMP": ["<", "<=", "==", "!=", ">", ">="],
    "SHIFT": ["<<", ">>"],
    "MULOP": ["//", "/", "%"],
}  # fmt: skip
NOISE = [
    "\x00",
    "\x0b",
    "\x0c",
    "\x1b",
    "\x7f",
    "\u2028",
    "\ufeff",
    "\u202e",
    "é",
    "\U0001f600",
    "\r",
    "\t",
    "\\",
]


class Grammar:
    """Random sentences of the grammar that the parser itself uses."""

    def __init__(self) -> None:
        parser = parse._parser()
        self.rules: dict[str, list[list[lark.grammar.Symbol]]] = {}
        for rule in parser.rules:
            self.rules.setdefault(rule.origin.name, []).append(rule.expansion)
        self.words = {
            terminal.name: [terminal.pattern.value]
            for terminal in parser.terminals
            if terminal.pattern.type == "str"
        } | SAMPLES
        self.depth = self._least_depths()

    def _least_depths(self) -> dict[str, int]:
        depth: dict[str, int] = {}
        for _ in self.rules:
            for name, expansions in self.rules.items():
                known = [
                    1 + max((0 if symbol.is_term else depth[symbol.name] for symbol in expansion), default=0)
                    for expansion in expansions
                    if all(symbol.is_term or symbol.name in depth for symbol in expansion)
                ]
                if known:
                    depth[name] = min(known)
        return depth

    def _cost(self, expansion: list[lark.grammar.Symbol]) -> int:
        return max((0 if symbol.is_term else self.depth[symbol.name] for symbol in expansion), default=0)

    def sentence(self, chance: random.Random, start: str = "start", depth: int = 16) -> str:
        """Words of a derivation of `start`; below `depth` only what ends soonest."""
        words: list[str] = []
        stack: list[tuple[lark.grammar.Symbol | str, int]] = [(start, depth)]
        while stack and len(words) < 120:
            symbol, left = stack.pop()
            name = symbol if isinstance(symbol, str) else symbol.name
            if name in self.rules:
                options = self.rules[name]
                if left <= 0:
                    least = min(map(self._cost, options))
                    options = [option for option in options if self._cost(option) == least]
                stack += [(part, left - 1) for part in reversed(chance.choice(options))]
            else:
                words.append(chance.choice(self.words.get(name, ["?"])))
        return " ".join(words)


def from_grammar(grammar: Grammar, chance: random.Random) -> str:
    """A file of one group whose rules are random sentences; most are well formed and few make sense."""
    kind = chance.choice(("rule", "rule", "rule", "vjp", "render", "forblock", "start"))
    if kind == "start":
        return grammar.sentence(chance)
    body = "\n  ".join(
        grammar.sentence(chance, kind, chance.randrange(5, 18)) for _ in range(chance.randrange(1, 3))
    )
    mode = {"vjp": "vjp", "render": "render"}.get(kind, "fixpoint")
    return f"native f(n: node, c: any) -> node? pure\nview one(x) = x * 1\ngroup g({mode}) {{\n  {body}\n}}"


def from_words(grammar: Grammar, chance: random.Random) -> str:
    """Words of the language in any order."""
    words = [word for options in grammar.words.values() for word in options]
    return " ".join(chance.choices(words + NOISE, k=chance.randrange(1, 60)))


def broken(pieces: list[str], chance: random.Random) -> str:
    """A rule of the core with some characters or words lost, doubled, exchanged or put in."""
    text = chance.choice(pieces)
    for _ in range(chance.randrange(1, 5)):
        words = re.findall(r"\w+|\W", text)
        at = chance.randrange(len(words))
        what = chance.randrange(6)
        if what == 0:
            del words[at]
        elif what == 1:
            words.insert(at, words[at])
        elif what == 2:
            words[at] = chance.choice(words)
        elif what == 3:
            words.insert(at, chance.choice(NOISE))
        elif what == 4:
            words[at] = chance.choice([option for options in SAMPLES.values() for option in options])
        else:
            words = words[:at]
        text = "".join(words) or " "
    return f"group g(fixpoint) {{\n{text}\n}}"


def core_pieces() -> list[str]:
    """The rules of the core, as text without the blocks around them."""
    found = []
    for path in CORE:
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [
            line.strip() for line in lines if re.match(r"\s+(\w+:|vjp |render )", line) and "=>" in line
        ]
    return found


def nested(size: int) -> Iterator[tuple[str, str]]:
    """Deep and long files, by name."""
    rule = "group g(fixpoint) {{ r: {} => {} }}"
    yield "parentheses left", rule.format("(" * size + "x" + ")" * size + " * 1", "x")
    yield "parentheses right", rule.format("x * 1", "(" * size + "x" + ")" * size)
    yield "open parentheses", rule.format("(" * size, "x")
    yield "lists", rule.format("x * 1 if len(" + "[" * size + "]" * size + ") == 1", "x")
    yield "negations", rule.format("- " * size + "x", "x")
    yield "negated right", rule.format("x * 1", "- " * size + "x")
    yield "sum left", rule.format("x" + " + 1" * size, "x")
    yield "sum right", rule.format("x * 1", "x" + " + 1" * size)
    yield "powers of numbers", rule.format("$c * x", "(" + "c * c * " * size + "1) * x")
    yield "ops left", rule.format("SQRT(" * size + "x" + ")" * size, "x")
    yield "ops right", rule.format("x * 1", "SQRT(" * size + "x" + ")" * size)
    yield "captures", rule.format("".join(f"a{k}@" for k in range(size)) + "SQRT(x)", "x")
    yield "conditions", rule.format("x * 1 if " + "not " * size + "x.is_const", "x")
    yield "and", rule.format("x * 1 if " + "x.is_const and " * size + "true", "x")
    yield "ternaries", rule.format("x * 1", "x if true else " * size + "x")
    yield "guards", rule.format("x * 1" + " if x.is_const" * size, "x")
    yield "items", rule.format("x * 1 if x.shape" + "[0]" * size + " == 1", "x")
    yield "operands", rule.format("SINK(" + ", ".join(f"a{k}" for k in range(size)) + ")", "SINK(a0)")
    yield (
        "for blocks",
        "group g(fixpoint) {" + "for OP in (ADD|MUL) {" * size + "r: OP(x, 0) => x" + "}" * (size + 1),
    )
    yield (
        "views in views",
        "".join(
            f"view v{k}(x) = {f'v{k - 1}(x) + v{k - 1}(x)' if k else 'x * 1'}\n"
            for k in range(min(size, 600))
        )
        + rule.format(f"v{min(size, 600) - 1}(x)", "x"),
    )
    yield "a view of itself", "view v(x) = v(x + 1)\n" + rule.format("v(x)", "x")
    yield "orders", rule.format(" * ".join(f"(a{k} + b{k})" for k in range(min(size, 60))), "a0")
    yield "a long name", rule.format("x * 1", "x").replace("r:", "r" * size * 10 + ":")
    yield "a long number", rule.format("x * " + "9" * size * 10, "x")
    yield "a long hex number", rule.format("x * 0x" + "f" * size * 10, "x")
    yield "a long exponent", rule.format("x * 1e" + "9" * size, "x")
    yield "a long string", rule.format("x * 1", "x") + ' why "' + "a" * size * 10
    yield "a long comment", "#" + "a" * size * 100
    yield (
        "strategies",
        "group g(fixpoint) { r: x * 1 => x }\npass p = " + "fixpoint(" * size + "g" + ")" * size,
    )
    yield "a long pass", "group g(fixpoint) { r: x * 1 => x }\npass p = " + " ; ".join(["g"] * size)
    yield "kinds", "native f(x: " + "list[" * size + "node" + "]" * size + ") -> node"
    yield (
        "targets",
        rule.format("x * 1 if all([true for " + "(" * size + "a" + ")" * size + " in x.src])", "x"),
    )


PLACE = re.compile(r"hostile\.rules:(\d+):(\d+)")


def judge(text: str) -> str:
    """How the rule language takes a text: the name of its clean error, or "accepted".

    Raises AssertionError for an error without a place in the file, or one that took too long; whatever else
    is raised passes through.
    """
    start = time.monotonic()
    try:
        cache.compile_text(text, "hostile.rules")
        verdict = "accepted"
    except (RuleSyntaxError, RuleCheckError) as error:
        verdict = type(error).__name__
        place = PLACE.match(error.where or "")
        assert place, f"no place in {error.where!r} of {error.what!r}"
        assert 1 <= int(place[1]) <= text.count("\n") + 1, (error.where, text)
        shown = str(error).replace("\n", "")
        assert shown.isprintable(), f"what cannot be printed reaches the terminal: {shown!r}"
    seconds = time.monotonic() - start
    assert seconds < LIMIT, f"{seconds:.1f} s"
    return verdict


def inputs(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """So many hostile texts with the names of their kinds; the same for a seed."""
    chance = random.Random(seed)
    grammar, pieces = Grammar(), core_pieces()
    for _ in range(count):
        kind = chance.choices(("grammar", "words", "broken"), (5, 1, 4))[0]
        if kind == "grammar":
            yield kind, from_grammar(grammar, chance)
        elif kind == "words":
            yield kind, from_words(grammar, chance)
        else:
            yield kind, broken(pieces, chance)


def main() -> int:
    """Judge many inputs; 1 when one is not taken cleanly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    verdicts: Counter[str] = Counter()
    start = time.monotonic()
    for number, (kind, text) in enumerate(inputs(options.inputs, options.seed)):
        try:
            verdicts[f"{kind}: {judge(text)}"] += 1
        except Exception as error:  # noqa: BLE001  that is what is looked for
            verdicts["bugs"] += 1
            print(
                f"--- input {number}: {type(error).__name__}: {str(error)[:300]}\n{text[:600]!r}", flush=True
            )
    for name, amount in sorted(verdicts.items()):
        print(f"{amount:7} {name}")
    print(f"{options.inputs} inputs in {time.monotonic() - start:.1f} s")
    return 1 if verdicts["bugs"] else 0


if __name__ == "__main__":
    sys.exit(main())
