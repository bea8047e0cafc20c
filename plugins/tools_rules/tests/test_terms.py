"""z3 terms mean what the interpreter answers: every elementwise op, every dtype, edges and random operands."""

import itertools
import random

import numpy as np
import pytest
import z3
from tinycore_tools_rules.evaluate import differences, evaluate
from tinycore_tools_rules.prove import edge_values
from tinycore_tools_rules.symbols import BitSymbol, Path, Unsupported
from tinycore_tools_rules.terms import Terms

from tinycore.ir import UOp, dtypes, ops
from tinycore.ir.ops import ELEMENTWISE

SMALL = [
    "bool",
    "int8",
    "uint8",
    "int32",
    "uint64",
    "index",
    "float16",
    "float8_e5m2",
    "float8_e4m3",
    "float32",
]


def number(term, dtype):
    """The value of a closed term as an array of the dtype."""
    value = z3.simplify(term)
    if z3.is_bool(value):
        return np.array(z3.is_true(value))
    if z3.is_fp(value):
        if dtype.name == "float8_e4m3":
            return e4m3(value)
        value = z3.simplify(z3.fpToIEEEBV(value))
        if not z3.is_bv_value(value):  # the bits of NaN are unspecified
            return np.array(np.nan).astype(dtype.numpy)
        return np.array(value.as_long(), f"uint{dtype.bits}").view(dtype.numpy)
    if z3.is_int(value):
        return np.array(value.as_long(), dtype.numpy)
    return np.array(value.as_long(), object).astype(f"uint{dtype.bits}").astype(dtype.numpy)


def e4m3(value):
    """Its z3 sort has more values than e4m3 has: those must not come up."""
    if z3.is_true(z3.simplify(z3.fpIsNaN(value))):
        return np.array(np.nan).astype(dtypes.float8_e4m3.numpy)
    bits = z3.simplify(z3.fpToIEEEBV(z3.fpToFP(z3.RNE(), value, z3.Float64()))).as_long()
    wide = np.array(bits, np.uint64).view(np.float64)
    narrow = wide.astype(dtypes.float8_e4m3.numpy)
    assert narrow.astype(np.float64) == wide
    return narrow


@pytest.mark.parametrize("bits", range(256))
def test_every_e4m3(bits):
    term = Terms(dict).of(UOp.from_bits(dtypes.float8_e4m3, bits))
    wanted = np.array(bits, np.uint8).view(dtypes.float8_e4m3.numpy)
    assert not differences(wanted, number(term, dtypes.float8_e4m3)).any()


def nodes(op, dtype, chance, count):
    """Nodes of constants."""
    kinds = [spec.rpartition(":")[2] for spec in op.operands]
    own = [dtypes.bool_ if op is ops.WHERE and k == 0 else dtype for k in range(len(kinds))]
    if (
        op.operands[-1][0] == "T"
        and dtype not in dtypes.CLASSES[next(s for s in op.operands if ":" in s).split(":")[1]]
    ):
        return
    values = [edge_values(kind) for kind in own]
    every = list(itertools.product(*values))
    for chosen in chance.sample(every, min(count, len(every))):
        yield tuple(UOp.const(kind, value) for kind, value in zip(own, chosen, strict=True))


@pytest.mark.parametrize("op", sorted(ELEMENTWISE, key=lambda op: op.name), ids=lambda op: op.name)
def test_terms_are_the_interpretation(op):
    chance = random.Random(op.name)
    checked = 0
    for name in SMALL:
        dtype = dtypes.by_name(name)
        targets = [dtypes.by_name(other) for other in SMALL] if op in (ops.CAST, ops.BITCAST) else [dtype]
        for target, src in itertools.product(targets, nodes(op, dtype, chance, 14)):
            same = target.bits == dtype.bits and "index" not in (name, target.name)
            if op is ops.BITCAST and not (same and (name == "bool") == (target.name == "bool")):
                continue
            result = dtypes.bool_ if op.dtype == "bool" else target
            node = UOp(op, result, src)
            try:
                terms = Terms(dict)
                term = terms.of(node)
                if terms.abstract or terms.side:
                    continue
                answer = number(term, result)
            except (Unsupported, OverflowError):
                continue
            wanted = evaluate(node, {})
            if np.asarray(wanted).dtype == np.int64 and abs(int(wanted)) > 1 << 60:
                continue  # `index` has no such numbers
            loose = op in (ops.MAX, ops.MIN)
            assert not differences(wanted, answer, loose).any(), (node, src, wanted, answer)
            checked += 1
    transcendental = {ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF, ops.POW}
    assert checked >= 4 or op in transcendental | {ops.BITCAST}


def test_exact_arithmetic_on_bit_vectors():
    """Random arithmetic of 8-bit numbers in Python and in symbols of as many bits as it needs."""
    chance = random.Random(3)
    for _ in range(200):
        path = Path([], [])
        numbers = [chance.randint(-128, 127) for _ in range(3)]
        symbols = [BitSymbol.of_term(path, z3.BitVecVal(value, 8), True) for value in numbers]
        plain, symbolic = numbers[0], symbols[0]
        for _ in range(chance.randint(1, 5)):
            operator = chance.choice(["+", "-", "*", "//", "%", "neg"])
            k = chance.randrange(3)
            if operator == "neg":
                plain, symbolic = -plain, -symbolic
            elif operator in RING or numbers[k]:
                function = {**RING, **DIVIDE}[operator]
                plain, symbolic = function(plain, numbers[k]), function(symbolic, symbols[k])
        assert symbolic.low <= plain <= symbolic.high
        for width in (8, 13, 64):
            assert z3.simplify(symbolic.make(width)).as_long() == plain % (1 << width)
        limit = chance.randint(-300, 300)
        assert bool(symbolic < limit) == (plain < limit)
        assert bool(symbolic == plain)


RING = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
DIVIDE = {"//": lambda a, b: a // b, "%": lambda a, b: a % b}


def test_symbols_refuse_what_has_no_meaning():
    symbol = BitSymbol.of_term(Path([], []), z3.BitVec("x", 8), True)
    for use in (int, float, lambda s: [1, 2][s], lambda s: 1 << s, lambda s: s & 3, lambda s: s + 0.5):
        with pytest.raises(Unsupported):
            use(symbol)
