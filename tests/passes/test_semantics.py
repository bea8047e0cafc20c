"""Every exact rule of algebra.rules, index.rules and decompose.rules, on instances.

From the pattern of each rule, in each order of operands, graphs are made that it should match. They are
evaluated before and after (by the interpreter; `index` in unbounded integers), and the answers must agree bit
for bit. A rule that never fires fails the test.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest
from passes_helpers import Context, assignments, evaluate, loop, same_bits, target, values

import tinycore
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.ops import TABLE
from tinycore.rules import load, trace
from tinycore.rules import syntax as s
from tinycore.rules.expand import OP_CLASSES, cases_of, rules_of
from tinycore.rules.parse import parse

SIZE = 64
GROUPS = [
    ("algebra", "constants"),
    ("algebra", "algebra"),
    ("algebra", "bools"),
    ("decompose", "integers"),
    ("decompose", "narrow"),
    ("decompose", "conversions"),
]
NUMBERS = [0, 1, -1, 2, 3, -3, 7, 8, 31, 64, 100, 255]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    3.0,
    -8.0,
    0.1,
    1e30,
    1e-30,
    float("inf"),
    float("-inf"),
    float("nan"),
]
KINDS = {name: set(members) - {dtypes.index} for name, members in dtypes.CLASSES.items()}
NARROW = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")
TARGETS = [
    target(without=[ops.MAX, ops.MIN], arithmetic=[d for d in dtypes.DATA if d.name not in NARROW]),
    target(without=[ops.MAX, ops.MIN]),
]
"""One that computes in wide floats only, one in all; both without MAX, MIN and transcendentals."""


def file_of(module):
    path = Path(tinycore.__file__).parent / "passes" / f"{module}.rules"
    return parse(path.read_text(), str(path))


def cases(groups, without=()):
    for module, group in groups:
        file = file_of(module)
        (tree,) = [item for item in file.groups if item.name == group]
        for rule in rules_of(file, tree):
            inexact = any(note.name in ("fast", "unsafe", "approx") for note in rule.annotations)
            if not inexact and rule.name.split("[")[0] not in without:
                yield pytest.param(module, group, cases_of(file, rule), id=f"{group}-{rule.name}")


class Impossible(Exception):
    """No instance of this pattern exists for the dtypes that were chosen."""


class Maker:
    """Makes graphs that a pattern should match."""

    kinds = KINDS

    def __init__(self, chance):
        self.chance = chance
        self.bound = {}
        self.types = {}
        self.leaves = {}

    def allowed(self, pattern):
        """The dtypes that the value of a pattern may have."""
        kind = getattr(pattern, "type", None)
        if isinstance(pattern, s.Capture):
            return self.allowed(pattern.pattern)
        if isinstance(pattern, (s.Variable, s.Constant)):
            if kind is None:
                return self.kinds["Any"]
            if kind in self.types:
                return {self.types[kind]}
            return (
                self.kinds[kind]
                if kind in self.kinds
                else {dtypes.by_name(kind)}
                if not kind[0].isupper()
                else self.kinds["Any"]
            )
        if isinstance(pattern, s.Literal):
            if isinstance(pattern.value, bool):
                return {dtypes.bool_}
            return self.kinds["Number"] if isinstance(pattern.value, int) else self.kinds["Float"]
        op = TABLE[pattern.ops[0]]
        if op.dtype == "bool":
            return {dtypes.bool_}
        if "dtype" in op.attributes:
            given = pattern.attributes[0] if pattern.attributes else None
            if given is not None and isinstance(given.equal, s.Name):
                return {dtypes.by_name(given.equal.name)}
            return (
                {self.types[given.name]}
                if given is not None and given.name in self.types
                else self.kinds["Any"]
            )
        return self.shared(op, pattern)

    def shared(self, op, pattern):
        """The dtypes that all operands called T may have."""
        found = self.kinds["Any"]
        for spec, operand in zip(op.operands, pattern.operands, strict=True):
            name, _, kind = spec.partition(":")
            if name == "T":
                found = found & self.allowed(operand) & (self.kinds[kind] if kind else self.kinds["Any"])
        return found

    def pick(self, choices):
        if not choices:
            raise Impossible
        return self.chance.choice(sorted(choices, key=lambda d: d.name))

    def make(self, pattern, dtype):
        if isinstance(pattern, s.Capture):
            node = self.make(pattern.pattern, dtype)
            self.bound[pattern.name] = node
            return node
        if isinstance(pattern, s.Literal):
            return UOp.const(dtype, pattern.value, (SIZE,))
        if isinstance(pattern, (s.Variable, s.Constant)):
            return self.leaf(pattern, dtype)
        op = TABLE[
            self.chance.choice([name for part in pattern.ops for name in OP_CLASSES.get(part, (part,))])
        ]
        if op is ops.CONST:
            return self.constant(dtype)
        return self.apply(op, pattern, dtype)

    def apply(self, op, pattern, dtype):
        name = pattern.attributes[0].name if "dtype" in op.attributes and pattern.attributes else None
        if name is not None and self.types.setdefault(name, dtype) is not dtype:
            raise Impossible
        common = dtype
        if op.dtype == "bool":
            common = self.pick(self.shared(op, pattern))
        src = []
        for spec, operand in zip(op.operands, pattern.operands, strict=True):
            name, _, _ = spec.partition(":")
            own = common if name == "T" else self.pick(self.allowed(operand) & self.kinds[name])
            src.append(self.make(operand, own))
        if op is ops.BITCAST and (
            src[0].dtype.bits != dtype.bits or "bool" in (src[0].dtype.kind, dtype.kind)
        ):
            raise Impossible
        return UOp(op, dtype, tuple(src))

    def leaf(self, pattern, dtype):
        known = self.bound.get(pattern.name)
        if known is not None:
            if known.dtype is not dtype:
                raise Impossible
            return known
        kind = getattr(pattern, "type", None)
        if (
            kind is not None
            and kind[0].isupper()
            and kind not in self.kinds
            and self.types.setdefault(kind, dtype) is not dtype
        ):
            raise Impossible
        node = self.constant(dtype) if isinstance(pattern, s.Constant) else self.variable(dtype)
        if pattern.name is not None:
            self.bound[pattern.name] = node
        return node

    def variable(self, dtype):
        node = UOp(ops.BUFFER, dtype, (), (len(self.leaves), (SIZE,), "D"))
        self.leaves[node] = values(dtype, SIZE, self.chance)
        if dtype.kind in ("int", "uint"):  # sometimes with bounds that guards can use
            node = self.chance.choice([node, node & 7, (node & 7) + 1, node | 1, (node & 7) + 100])
        return node

    def constant(self, dtype):
        return UOp.const(dtype, self.chance.choice(FLOATS if dtype.is_float else NUMBERS), (SIZE,))


def instances(maker_type, orders, found, enough, most, must_fire=True):
    """Graphs that the cases of a rule should match, the same in every run, until it fired and enough came."""
    name = orders[0].rule.name
    chance = random.Random(name)
    for attempt in range(most * len(orders)):
        if attempt >= enough * len(orders) and any(event.rule.name == name for event in found.events):
            return
        maker = maker_type(chance)
        pattern = orders[attempt % len(orders)].pattern
        with contextlib.suppress(Impossible):
            yield (
                maker,
                maker.make(pattern, maker.pick(maker.allowed(pattern))),
                TARGETS[attempt // len(orders) % 2],
            )
    assert not must_fire, f"{name} never fired"


@pytest.mark.parametrize("module, group, orders", list(cases(GROUPS, ("wider_reduce",))))  # no scalars
def test_a_rule_keeps_every_bit(module, group, orders):
    rewrite = load(f"tinycore.passes.{module}").groups[group]
    with trace() as found:
        for maker, before, machine in instances(Maker, orders, found, 30, 300):
            after = rewrite(before, Context(machine))
            if after is before:
                continue
            assert after.dtype is before.dtype and after.shape == before.shape
            expected, answer = interpret([before], maker.leaves)[0], interpret([after], maker.leaves)[0]
            signless = before.op in (ops.MAX, ops.MIN)
            assert same_bits(expected, answer, signless), (before, after, expected, answer)


class IndexMaker(Maker):
    """Makes scalars of dtype `index`: sums over loops, now and then a constant."""

    kinds = {
        name: members & {dtypes.index, dtypes.bool_}
        for name, members in ((n, set(m)) for n, m in dtypes.CLASSES.items())
    }

    def variable(self, dtype):
        if dtype is dtypes.bool_:
            return self.variable(dtypes.index) < self.constant(dtypes.index)
        if self.chance.random() < 0.4:
            return self.constant(dtype)
        i, j, k = loop(0, 48), loop(1, 4), loop(2, 3)
        n = loop(3, self.chance.choice([1, 2, 6]))
        plain = [
            i,
            j,
            k,
            n,
            i * 4 + j,
            i * 3 + k,
            j * 6 + k * 2,
            k * -4 + 8,
            i * 12 + j * 3 + k,
            j * k + 1,
            k + 1,
            i - 30,
        ]
        quotients = [i // 2, i % 6, i // 4 % 3, (i * 4 + j) // 6 % 2, (i - 9) // 5]
        return self.chance.choice(plain + quotients)

    def constant(self, dtype):
        if dtype is dtypes.bool_:
            return UOp.const(dtype, self.chance.choice([True, False]))
        return UOp.const(dtype, self.chance.choice([1, 2, 3, 4, 6, 12, 24, 0, -1, -2, -6, 5, 7]))

    def make(self, pattern, dtype):
        node = super().make(pattern, dtype)
        return UOp.const(node.dtype, node.value) if node.is_const else node


ELSEWHERE = ("range_1", "end_1", "reduce_0", "reduce_1", "bitcast_same", "bitcast_twice")
"""Rules about ops that are no arithmetic on indices."""
INDEX_GROUPS = [("index", "index"), ("algebra", "algebra"), ("algebra", "bools"), ("algebra", "constants")]


@pytest.mark.parametrize("module, group, orders", list(cases(INDEX_GROUPS, ELSEWHERE)))
def test_a_rule_keeps_the_value_of_indices(module, group, orders):
    rewrite = load(f"tinycore.passes.{module}").groups[group]
    must = group == "index"
    with trace() as found:
        for _, before, machine in instances(IndexMaker, orders, found, 20, 1000 if must else 20, must):
            after = rewrite(before, Context(machine))
            if after is before:
                continue
            ranges = sorted({r for r in before.toposort() if r.op is ops.RANGE}, key=lambda r: r.arg[0])
            for known in assignments(ranges, limit=40):
                assert evaluate(before, known) == evaluate(after, known), (before, after, known)


@pytest.mark.parametrize("source", dtypes.DATA, ids=str)
def test_chains_of_casts(source):
    """All triples of dtypes: where a cast is left out, no value may notice."""
    simplify = load("tinycore.passes.algebra").passes["simplify"]
    x = UOp(ops.BUFFER, source, (), (0, (SIZE,), "D"))
    arrays = {x: values(source, SIZE, random.Random(source.name))}
    shortened = 0
    for middle in dtypes.DATA:
        for last in dtypes.DATA:
            before = x.cast(middle).cast(last)
            after = simplify(before)
            if after is not before:
                shortened += 1
                assert same_bits(interpret([before], arrays)[0], interpret([after], arrays)[0]), (
                    before,
                    after,
                )
    assert shortened
