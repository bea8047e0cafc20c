"""Ranges that end early, as ranges of a fixed size under a guard: numpy's axes have one size.

Tiling makes ranges whose bound depends on an outer range (``min(32, n - 32 * chunk)``). Such a range gets its
greatest bound; what depends on it is guarded by ``range < bound``, and a reduction over it ignores the rest.
"""

from __future__ import annotations

from tinycore.ir import dtypes, monoids
from tinycore.ir.ops import ops
from tinycore.ir.uop import UOp


def with_static_bounds(kernel: UOp) -> UOp:
    """The same kernel in which no bound depends on a range; the kernel itself where none does."""
    order = kernel.toposort()
    early = {node for node in order if node.op is ops.RANGE and node.src[0].ranges}
    if not early:
        return kernel
    memo: dict[UOp, UOp] = {}
    guards: dict[UOp, UOp] = {}
    for node in order:
        src = [memo[operand] for operand in node.src]
        if node in early:
            most = UOp.const(dtypes.index, max(1, node.src[0].vmax))
            memo[node] = node.replace(src=(most,))
            guards[node] = memo[node] < src[0]
            continue
        inside = [guards[each] for each in node.ranges if each in early]
        if node.op in (ops.LOAD, ops.STORE):
            for guard in inside:
                src[-1] = src[-1] & guard
        elif node.op is ops.REDUCE:
            neutral = UOp.const(node.dtype, monoids.identity(node.arg[0], node.dtype))
            for consumed in node.src[1:]:
                if consumed in early:
                    src[0] = guards[consumed].where(src[0], neutral)
        memo[node] = node.replace(src=tuple(src))
    return memo[kernel]
