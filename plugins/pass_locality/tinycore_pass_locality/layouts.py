"""Physical layouts: how values lie in memory where that is nobody's business but the kernels'.

Two decisions, both after it is known which values are stored:

- **Weights are packed.** The operand of a contraction that is an input of the graph and is read many times is
  copied so that the axis that gets the lanes comes last, in blocks of two vectors. The copy is a step of its
  own that the runtime remembers as long as the input stays unchanged.
- **Channels last.** What a convolution stores, and what is computed from it at the same rank, lies in memory
  with the channels last, unless somebody outside sees it or an axis is lost on the way to a user. All pixels
  of a kernel then read and write whole vectors.

Nothing changes for devices whose values have no lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass

from tinycore.ir import UOp, dims, ops, toposort
from tinycore.ir.ops import MOVEMENT
from tinycore.schedule import Layout, Placement
from tinycore.schedule.axes import MIXED, Trace, along, trace
from tinycore_pass_locality.views import above, view

REUSE = 16
"""How often an element of the weights must be read for a copy to pay."""
MOST_PADDED = 2
"""How many times larger than an input a copy of it may be."""
LEAST_LANES = 8
"""An axis of fewer elements gets no lanes."""


@dataclass(frozen=True, slots=True)
class _Contraction:
    """A sum of products below a stored value: `path` leads from the value to the REDUCE."""

    path: tuple[UOp, ...]
    weights: int
    """Which operand of the product."""
    lanes: int
    """The axis of the product that gets the lanes."""
    image: Trace
    traced: Trace

    @property
    def output_axis(self) -> int | None:
        """The axis of the stored value that gets the lanes; filters of several groups are neighbours in it."""
        return above(self.path, self.lanes)


def choose_layouts(placement: Placement, lane_bytes_of: Callable[[UOp], int]) -> Placement:
    """See the module. What has a layout already, is kept or keeps something stays as it is."""
    return _Chooser(placement, lane_bytes_of).run()


class _Chooser:
    def __init__(self, placement: Placement, lane_bytes_of: Callable[[UOp], int]) -> None:
        self.placement, self.lane_bytes_of = placement, lane_bytes_of
        self.fixed = {*placement.kept, *placement.kept.values(), *placement.layouts}
        self.stored = placement.stored | placement.kept.keys()
        self.order = toposort(placement.roots)
        self.visible = {root.under(ops.RESHAPE) for root in placement.roots}
        self.layouts: dict[UOp, Layout] = {}
        self.packs: dict[UOp, tuple[_Contraction, int]] = {}
        self.users: dict[UOp, list[UOp]] | None = None

    def run(self) -> Placement:
        for node in self.order:
            if node in self.fixed:
                continue
            if node in self.stored and (node.op.elementwise or node.op in (ops.REDUCE, *MOVEMENT)):
                self._decide(node)
        return self._rebuild() if self.layouts or self.packs else self.placement

    # --- deciding -----------------------------------------------------------------------------------------

    def _decide(self, node: UOp) -> None:
        lanes = self.lane_bytes_of(node) // node.dtype.itemsize
        if lanes < 2:
            return
        path = _path_to_reduction(node, self.stored)
        found = self._contraction(path) if path else None
        if found is None:
            order = self._inherited(node)
            if order is not None:
                self.layouts[node] = Layout(order)
            return
        axis = found.output_axis
        if axis is None:
            return
        order = None
        if self._is_image(found) and node not in self.visible and self._survives(node, axis):
            order = (*[k for k in range(len(node.shape)) if k != axis], axis)
        size = found.path[-1].src[0].shape[found.lanes]
        block = 2 * lanes
        split = (axis, block) if isinstance(size, int) and size % block == 0 and size > block else None
        self.packs[path[-1]] = found, block if split else 0
        if order or split:
            self.layouts[node] = Layout(order, split)

    def _contraction(self, path: tuple[UOp, ...]) -> _Contraction | None:
        """Whether a sum of products has weights to pack; both operands are tried."""
        reduction = path[-1]
        product = reduction.src[0].under(ops.CAST)
        if reduction.arg[0] is not ops.ADD or product.op is not ops.MUL:
            return None
        traces = [trace(operand) for operand in product.src]
        for weights in (1, 0):
            found = self._with_weights(path, product, traces, weights)
            if found is not None:
                return found
        return None

    def _with_weights(
        self, path: tuple[UOp, ...], product: UOp, traces: list[Trace], weights: int
    ) -> _Contraction | None:
        own, other = traces[weights], traces[1 - weights]
        if own.base.op is not ops.BUFFER:
            return None
        if MIXED in own.axes:
            own = view(product.src[weights])
            if not _is_view_of(own.base, traces[weights].base):
                return None
        if not all(isinstance(size, int) for size in own.base.shape):  # a copy depends on its source alone
            return None
        reduced = frozenset(path[-1].arg[1])
        free = sorted(own.varying - other.varying - reduced)
        rows = other.varying - own.varying - reduced
        if not free or dims.upper(dims.product(product.shape[axis] for axis in rows)) < REUSE:
            return None
        lanes = max(free, key=lambda axis: dims.upper(product.shape[axis]))
        if dims.upper(product.shape[lanes]) < LEAST_LANES or not isinstance(product.shape[lanes], int):
            return None
        found = _Contraction(path, weights, lanes, other, own)
        if self._is_image(found):
            return found
        last = max(axis for axis in range(len(product.shape)) if axis in (rows | own.varying) - reduced)
        if len(free) > 1:  # phases, say: too few neighbours for lanes
            return found if last in free and dims.upper(product.shape[last]) < LEAST_LANES else None
        where = own.axes.index(lanes)
        strided = any(size != 1 for size in own.base.shape[where + 1 :])
        return found if last == lanes and strided else None

    def _is_image(self, found: _Contraction) -> bool:
        """Whether windows slide over the other operand, its rows are walked in strides, or its channels lie last."""
        reduced = frozenset(found.path[-1].arg[1])
        pixels = found.image.mixed - reduced - found.traced.varying
        if pixels and (found.image.mixed & reduced or _innermost(found, reduced) in pixels):
            return True
        reads = self._reads((found.image.base,))
        return any(read in self.layouts and self.layouts[read].order is not None for read in reads)

    def _inherited(self, node: UOp) -> tuple[int, ...] | None:
        """The order of something that the value is computed from, where the axes are the same."""
        if node in self.visible or len(node.shape) < 3:
            return None
        for read in self._reads(node.src):
            layout = self.layouts.get(read)
            axis = _same_axis(read, layout.order[-1], node) if layout and layout.order else None
            if axis is not None and self._survives(node, axis):
                return (*[k for k in range(len(node.shape)) if k != axis], axis)
        return None

    def _reads(self, values: Iterable[UOp]) -> Iterator[UOp]:
        """The stored values among these, or that a kernel reads to compute them."""
        seen: set[UOp] = set()
        stack = list(values)
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.stored:
                yield current
            else:
                stack.extend(current.src)

    def _survives(self, node: UOp, axis: int) -> bool:
        """Whether the axis is still an axis of its own wherever the value is used; copies want it plain."""
        stack = [(node, axis)]
        while stack:
            current, place = stack.pop()
            for user in self._users(current):
                if user.op in MOVEMENT:
                    above = [k for k, entry in enumerate(_entries_of(user)) if entry == place]
                    if len(above) != 1:
                        return False
                    stack.append((user, above[0]))
                elif not user.op.elementwise and user.op is not ops.REDUCE:
                    return False
        return True

    def _users(self, node: UOp) -> list[UOp]:
        if self.users is None:
            self.users = {}
            for each in self.order:
                for operand in dict.fromkeys(each.src):
                    self.users.setdefault(operand, []).append(each)
        return self.users.get(node, [])

    # --- rebuilding ---------------------------------------------------------------------------------------

    def _rebuild(self) -> Placement:
        """The graph with packed operands, and everything that was decided said of its nodes."""
        memo: dict[UOp, UOp] = {}
        packed: dict[UOp, None] = {}
        for node in self.order:
            src = tuple([memo[operand] for operand in node.src])
            memo[node] = node if src == node.src else node.replace(src=src)
            if node in self.packs:
                found, block = self.packs[node]
                copy, unpacked = _packed(found, block)
                packed[copy] = None
                memo[node] = _with_operand(memo[node], found, unpacked)
        before = self.placement
        layouts = {**before.layouts, **self.layouts}
        return Placement(
            roots=tuple([memo[root] for root in before.roots]),
            stored=frozenset([memo[node] for node in before.stored]) | packed.keys(),
            kept={memo[node]: memo[user] for node, user in before.kept.items()},
            layouts={memo[node]: layout for node, layout in layouts.items()},
            remembered=frozenset([memo[node] for node in before.remembered]) | packed.keys(),
        )


def _innermost(found: _Contraction, reduced: frozenset[int]) -> int:
    """The last axis of the result of a contraction."""
    shape = found.path[-1].src[0].shape
    return max((axis for axis, size in enumerate(shape) if axis not in reduced and size != 1), default=-1)


def _is_view_of(node: UOp, buffer: UOp) -> bool:
    """Whether movement alone makes a value of an input, without making it much larger."""
    if not all(isinstance(size, int) for size in node.shape):
        return False
    large = dims.upper(dims.product(node.shape)) > MOST_PADDED * dims.upper(dims.product(buffer.shape))
    while node.op in MOVEMENT:
        node = node.src[0]
    return node is buffer and not large


def _packed(found: _Contraction, block: int) -> tuple[UOp, UOp]:
    """The copy of the weights, and the view of it that has the shape of the weights.

    Blocks of the axis with the lanes come first, then what is not summed (groups), then the axes that windows
    slide over, then the other summed axes: each step of the innermost loop reads the vectors next to those of
    the step before.
    """
    base, axes = found.traced.base, found.traced.axes
    place = axes.index(found.lanes)
    shape, rank = base.shape, len(base.shape)
    assert isinstance(shape[place], int)
    reduced, slides = found.path[-1].arg[1], found.image.mixed - found.image.parts
    others = [axis for axis in range(rank) if axis != place]
    outer = [axis for axis in others if axes[axis] not in reduced]
    sliding = [axis for axis in others if axis not in outer and axes[axis] in slides]
    plain = [axis for axis in others if axis not in outer and axis not in sliding]
    if not block:
        order = (*outer, *sliding, *plain, place)
        copy = UOp(ops.CONTIGUOUS, base.dtype, (UOp(ops.PERMUTE, base.dtype, (base,), order),))
        return copy, UOp(ops.PERMUTE, base.dtype, (copy,), _inverse(order))
    blocked = (*shape[:place], shape[place] // block, block, *shape[place + 1 :])

    def moved(axis: int) -> int:
        return axis if axis < place else axis + 1

    order = (place, *[moved(axis) for axis in (*outer, *sliding, *plain)], place + 1)
    view = UOp(ops.RESHAPE, base.dtype, (base,), blocked)
    copy = UOp(ops.CONTIGUOUS, base.dtype, (UOp(ops.PERMUTE, base.dtype, (view,), order),))
    back = UOp(ops.PERMUTE, base.dtype, (copy,), _inverse(order))
    return copy, UOp(ops.RESHAPE, base.dtype, (back,), shape)


def _with_operand(reduction: UOp, found: _Contraction, unpacked: UOp) -> UOp:
    """The reduction with the weights read from their copy."""
    casts: list[UOp] = []
    product = reduction.src[0]
    while product.op is ops.CAST:
        casts.append(product)
        product = product.src[0]
    operands = list(product.src)
    operands[found.weights] = operands[found.weights].substitute({found.traced.base: unpacked})
    value = product.replace(src=tuple(operands))
    for cast in reversed(casts):
        value = cast.replace(src=(value,))
    return reduction.replace(src=(value,))


def _same_axis(read: UOp, axis: int, node: UOp) -> int | None:
    """The axis of a value that is the axis of what it is computed from; axes of one element aside.

    Its size may differ where all others are the same: values beside one another.
    """
    before = [k for k, size in enumerate(read.shape) if size != 1]
    after = [k for k, size in enumerate(node.shape) if size != 1]
    if len(before) != len(after) or axis not in before:
        return None
    found = after[before.index(axis)]
    others = [(one, other) for one, other in zip(before, after, strict=True) if one != axis]
    same = node.shape[found] == read.shape[axis]
    return found if same or all(read.shape[one] == node.shape[other] for one, other in others) else None


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _entries_of(movement: UOp) -> tuple[int, ...]:
    """For every axis of a movement op the axis of its operand that it is, or a negative number."""
    source = movement.src[0].shape
    if movement.op in (ops.PAD, ops.SHRINK):
        return tuple(range(len(source)))
    below = along((movement, movement.src[0])).axes
    result = [MIXED] * len(movement.shape)
    for axis, entry in enumerate(below):
        if entry >= 0 and source[axis] == movement.shape[entry]:
            result[entry] = axis
    return tuple(result)


def _path_to_reduction(node: UOp, stored: Set[UOp]) -> tuple[UOp, ...]:
    """From a stored value to the one REDUCE that its kernel computes, through elementwise and movement ops.

    Empty where there is none, or another one beside it.
    """
    parent: dict[UOp, UOp | None] = {node: None}
    stack, found = [node], []
    while stack:
        current = stack.pop()
        if current.op is ops.REDUCE:
            found.append(current)
            continue
        for operand in current.src:
            if operand not in parent and operand not in stored:
                parent[operand] = current
                stack.append(operand)
    if len(found) != 1:
        return ()
    path: list[UOp] = []
    step: UOp | None = found[0]
    while step is not None:
        path.append(step)
        step = parent[step]
    return tuple(reversed(path))
