"""The hottest function of the program: what UOp(...) costs beside a bare weak-table intern with clean-up.

    python benchmarks/intern.py [--check]

A hit is a node that exists, a miss one that must be made (and dies again). The bare table does the least that
interning with clean-up can do: no mask, no settling of races. Both are measured alternately in one run, best
of many; only the ratios mean something. ``--check`` fails above the limits of the design: 2.0 and 1.5.
"""

from __future__ import annotations

import argparse
import sys
import threading
import timeit
import weakref

from tinycore.ir import UOp, dtypes, ops

HIT_LIMIT, MISS_LIMIT = 2.0, 1.5
F32 = dtypes.float32


class Node:
    __slots__ = ("__weakref__", "arg", "dtype", "op", "src")


class Reference(weakref.ref):
    __slots__ = ("key",)


table: dict = {}
lock = threading.Lock()


def forget(reference):
    table.pop(reference.key, None)


def bare(op, dtype, src, arg=None):
    key = (op, dtype, src, arg)
    reference = table.get(key)
    if reference is not None:
        node = reference()
        if node is not None:
            return node
    node = Node()
    node.op, node.dtype, node.src, node.arg = op, dtype, src, arg
    reference = Reference(node, forget)
    reference.key = key
    with lock:
        table[key] = reference
    return node


def hits(make, count: int) -> float:
    src = (UOp.const(F32, 1.0), UOp.const(F32, 2.0))
    kept = make(ops.ADD, F32, src, None)
    seconds = timeit.timeit(lambda: make(ops.ADD, F32, src, None), number=count)
    assert make(ops.ADD, F32, src, None) is kept
    return seconds / count


def misses(make, count: int) -> float:
    src = (UOp.const(F32, 1.0), UOp.const(F32, 2.0))

    def run():
        for number in range(count):
            make(ops.ADD, F32, src, number)

    return timeit.timeit(run, number=1) / count


def best(measure, count: int, rounds: int) -> tuple[float, float]:
    """Seconds of UOp and of the bare table, taken alternately."""
    pairs = [(measure(UOp, count), measure(bare, count)) for _ in range(rounds)]
    return min(mine for mine, _ in pairs), min(theirs for _, theirs in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    arguments = parser.parse_args()
    late = False
    for name, measure, count, limit in (
        ("hit", hits, 50_000, HIT_LIMIT),
        ("miss", misses, 10_000, MISS_LIMIT),
    ):
        mine, bare_seconds = best(measure, count, 15)
        ratio = mine / bare_seconds
        late |= ratio > limit
        print(
            f"{name:<5} {mine * 1e9:6.0f} ns   bare {bare_seconds * 1e9:6.0f} ns   {ratio:.2f}x   (limit {limit}x)"
        )
    return 1 if late and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
