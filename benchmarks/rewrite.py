"""How fast rules rewrite: an index-arithmetic graph to its normal form.

    python benchmarks/rewrite.py [--nodes 4000] [--rounds 7] [--profile] [--check]

Prints rewrites a second and microseconds an input node (processor time, best of the rounds; every round
rewrites a graph that no memo has seen), what an unchanged graph costs, and checks results on random values.
Then, where tinygrad can be imported, the same for its `graph_rewrite` with the same graphs and rules, and the
ratio; ``--check`` fails when that is below the target.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from tinycore import rules
from tinycore.ir import UOp, dtypes, ops, toposort

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rewrite_compare

RULES = Path(__file__).with_suffix(".rules")
BOUNDS = (4, 8, 16, 32, 64, 3, 5, 7)


def index_graph(size: int, seed: int) -> tuple[UOp, list[UOp]]:
    """A sink over index expressions as movement ops make them, and its ranges.

    Every root ravels four ranges into a flat index, with offsets and units left in, and unravels it again by
    shapes that sometimes fit and sometimes do not.
    """
    generator = random.Random(seed)
    ranges = [
        UOp(ops.RANGE, dtypes.index, (UOp.const(dtypes.index, bound),), (k, "loop"))
        for k, bound in enumerate(BOUNDS)
    ]
    roots: list[UOp] = []
    while len(toposort(roots)) < size:
        for _ in range(8):
            axes = generator.sample(ranges, 4)
            flat, stride = axes[0] * 1 + generator.choice((0, 0, 2)), 1
            for axis in axes[1:]:
                stride *= generator.choice((4, 8, 16, 32))
                flat = flat + (axis * stride + generator.choice((0, 0, stride)))
            parts, rest = [], flat
            for divisor in generator.choices((2, 4, 8, 16), k=3):
                parts.append((rest % divisor) * generator.choice((1, 2, 4)))
                rest = rest // divisor
            total = rest * 1 + 0
            for part in parts:
                total = total + part * 2 + part
            roots.append(total * 4 + generator.choice((0, 1)))
    return UOp(ops.SINK, dtypes.void, tuple(roots)), ranges


def evaluate(root: UOp, values: dict[UOp, int]) -> list[int]:
    """The value of every operand of a sink."""
    known: dict[UOp, int] = dict(values)
    functions = {
        ops.ADD: int.__add__, ops.SUB: int.__sub__, ops.MUL: int.__mul__, ops.FLOORDIV: int.__floordiv__,
        ops.FLOORMOD: int.__mod__,
    }  # fmt: skip
    for node in root.toposort()[:-1]:
        if node.op is ops.CONST:
            known[node] = int(node.value)
        elif node not in known:
            known[node] = functions[node.op](*[known[operand] for operand in node.src])
    return [known[operand] for operand in root.src]


def copied(description: list[tuple]) -> UOp:
    """The graph of a description."""
    nodes: list[UOp] = []
    for op, dtype, src, arg in description:
        nodes.append(UOp(op, dtype, tuple([nodes[k] for k in src]), arg))
    return nodes[-1]


def described(root: UOp) -> list[tuple]:
    """A graph as fields and positions, so that nothing keeps its nodes alive."""
    nodes = toposort((root,))
    at = {node: k for k, node in enumerate(nodes)}
    return [(node.op, node.dtype, tuple([at[operand] for operand in node.src]), node.arg) for node in nodes]


def contest(nodes: int, rounds: int) -> list[rewrite_compare.Contestant]:
    """We and tinygrad on the same graphs. Raises ImportError without tinygrad, AssertionError for wrong results."""
    group = rules.load_file(RULES).groups["arithmetic"]

    def ours_at(root: UOp, values: dict[int, int]) -> list[int]:
        axes = [node for node in root.toposort() if node.op is ops.RANGE]
        return evaluate(root, {axis: values[axis.arg[0]] for axis in axes})

    found = rewrite_compare.contestants(group, copied, ours_at)
    for other in found[1:]:
        carry = other.carry
        other.carry = lambda description, carry=carry: carry(copied(description))
    rewrite_compare.compare(lambda seed: described(index_graph(nodes, seed)[0]), [*BOUNDS], found, rounds)
    return found


def beside_tinygrad(nodes: int, rounds: int) -> bool:
    """Print the comparison; whether the target is met (or tinygrad is absent)."""
    if not rewrite_compare.available():
        print("tinygrad is not installed (requirements-bench.txt): no comparison")
        return True
    found = contest(nodes, rounds)
    shares = rewrite_compare.ratios(found)
    print(found[0])
    for other, (best, paired) in zip(found[1:], shares, strict=True):
        print(f"{other}   {best:.2f}x of our best round, {paired:.2f}x paired")
    print(f"target: {rewrite_compare.TARGET}x, rules written as usual")
    return shares[0][0] >= rewrite_compare.TARGET


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--check", action="store_true", help="fail below the target")
    options = parser.parse_args()
    module = rules.load_file(RULES)
    arithmetic = module.groups["arithmetic"]
    best = (0.0, 0.0)
    for seed in range(options.rounds):
        root, ranges = index_graph(options.nodes, seed)
        size = len(root.toposort())
        start = time.process_time()
        result = arithmetic(root)
        seconds = time.process_time() - start
        with rules.trace() as found:
            again = arithmetic(root)
        assert again is result, "rewriting is not deterministic"
        best = max(best, (len(found.events) / seconds, seconds / size * 1e6))
        generator = random.Random(seed)
        for _ in range(3):
            values = {axis: generator.randrange(int(axis.src[0].value)) for axis in ranges}
            assert evaluate(root, values) == evaluate(result, values), (
                "the rewritten graph means something else"
            )
        start = time.process_time()
        assert arithmetic(result) is result
        unchanged = (time.process_time() - start) / len(result.toposort()) * 1e6
        print(
            f"{size} -> {len(result.toposort())} nodes, {len(found.events)} rewrites; {seconds * 1e3:.1f} ms "
            f"{len(found.events) / seconds:,.0f}/s, {seconds / size * 1e6:.2f} us a node; "
            f"unchanged {unchanged:.2f} us a node"
        )
    print(f"best: {best[0]:,.0f} rewrites/s, {best[1]:.2f} us an input node, {len(module.rules)} rules")
    met = beside_tinygrad(options.nodes, max(7, options.rounds))
    if options.profile:
        import cProfile

        root, _ = index_graph(options.nodes, 99)
        cProfile.runctx("arithmetic(root)", {"arithmetic": arithmetic, "root": root}, {}, sort="tottime")
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
