"""Which values are stored, and which are computed inside the kernel of their user.

Everything starts fused; a value gets a buffer of its own only for a reason. One walk from users to operands
decides. For every value it knows the *owner* (the stored value whose kernel computes it) and the *level*:
how its elements relate to the iterations of that kernel.

==========  =================================================================================================
level       meaning
==========  =================================================================================================
TOP         the owner's own elements, reached through elementwise ops only
ONE         one-to-one with the owner's elements, through RESHAPE, PERMUTE, FLIP, SHRINK or PAD
BELOW       a row value: TOP or FULL through an EXPAND of trailing axes
FULL        inside the reduction of the kernel: all elements of the rows
FREE        any other relation
==========  =================================================================================================

A REDUCE stays in a kernel where its result is computed once: at TOP or ONE as the kernel's own reduction
with everything after it as epilogue, and at BELOW as one of several reductions over the same rows (softmax,
layer normalisation). Anywhere else, with two owners, or where zeros around it would be summed up, too, it is
stored. Elementwise values are recomputed unless that is dear: they feed a reduction that reads each of them many
times, or several users while they are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tinycore.ir import Shape, UOp, dims, ops, toposort
from tinycore.ir.ops import MOVEMENT
from tinycore.passes.movement import is_arange

LONGEST = 160
"""Most elementwise ops that one kernel computes for one element."""
DEAR = 14
"""How many elementwise ops are worth storing when they would be computed more than once."""
MOST_READ = 30
"""Most buffers that one chain of elementwise ops reads: some devices take few arguments."""
MOST_REDUCTIONS = 8
"""Most reductions in one kernel."""
SHORT = 1 << 12
"""Reductions of so few elements to one result stay together, whatever their shapes."""
REUSE = 4
"""How often an element must be read through an EXPAND inside a reduction to be worth storing."""

_ALWAYS = frozenset({ops.CONTIGUOUS, ops.COPY, ops.ASSIGN, ops.SCATTER, ops.SCAN, ops.CUSTOM})
LEAVES = frozenset({ops.BUFFER, ops.CONST, ops.VARIABLE, ops.PARAM})
ONE_TO_ONE = frozenset({ops.RESHAPE, ops.PERMUTE, ops.FLIP, ops.SHRINK, ops.PAD})
COSTLY = frozenset({ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF, ops.POW})


class Level(Enum):
    """How the elements of a value relate to the iterations of its owner's kernel."""

    TOP = "top"
    ONE = "one"
    BELOW = "below"
    FULL = "full"
    FREE = "free"


@dataclass(slots=True)
class _Nest:
    """The two-level shape of an owner's kernel, once a reduction has fixed it."""

    axes: tuple[int, ...] | None = None
    shape: Shape | None = None
    reductions: int = 1
    rows: bool = False
    """Whether several reductions share the rows (then TOP may be the full shape)."""


@dataclass(slots=True)
class _Place:
    """What is known about one value: its owner and its level there.

    `inside` says whether some user computes it for every step of a reduction. `view` is the movement op that its
    users see it through, `several` whether they see it through more than one, `padded` whether some of them see
    zeros around it.
    """

    owner: UOp | None
    level: Level
    inside: bool = False
    view: UOp | None = None
    several: bool = False
    padded: bool = False
    uses: int = 1

    def merge(self, other: _Place) -> None:
        """Another user was found."""
        self.uses += other.uses
        self.inside |= other.inside
        self.several |= other.several or other.view is not self.view
        self.padded |= other.padded
        if other.owner is not self.owner:
            self.owner = None
            self.level = Level.FREE
        elif other.level is not self.level:
            self.level = Level.FREE


def always_stored(node: UOp) -> bool:
    """Whether a value is stored for what it is. A running sum of a constant is none: it is index arithmetic."""
    return node.op in _ALWAYS and not is_arange(node)


def choose_stored(roots: list[UOp]) -> set[UOp]:
    """The values that get a buffer: the roots (seen through RESHAPE) and whatever must not be recomputed."""
    return _Chooser(roots).run()


class _Chooser:
    """The state of one walk from the roots to the leaves."""

    def __init__(self, roots: list[UOp]) -> None:
        self.order = toposort(roots)
        wanted = {_storage(root) for root in roots}
        self.stored = {node for node in wanted if node.op not in LEAVES or node.op is ops.CONST}
        self.cost = _costs(self.order, self.stored)
        self.buffered = _touching_memory(self.order)
        self.places: dict[UOp, _Place] = {}
        self.nests: dict[UOp, _Nest] = {}

    def run(self) -> set[UOp]:
        for node in reversed(self.order):
            place = self.places.get(node)
            if (
                node in self.stored
                or always_stored(node)
                or (place is not None and self._must_store(node, place))
            ):
                if node.op in LEAVES and node not in self.stored:
                    continue
                self._store(node)
            elif place is not None:
                self._spread(node, place)
            elif node.op not in LEAVES:  # a RESHAPE above a stored root
                self._mark(node.src[0], None, Level.FREE)
        return self.stored

    # --- deciding -----------------------------------------------------------------------------------------

    def _must_store(self, node: UOp, place: _Place) -> bool:
        if node.op is ops.REDUCE:
            return not self._reduce_fits(node, place)
        if node.op.elementwise and place.uses > 1 and self.buffered[node]:
            return self.cost[node] > DEAR and not self._computed_once(place)
        return False

    def _computed_once(self, place: _Place) -> bool:
        """Whether one kernel computes the value once for each of its iterations, however many users it has."""
        if place.owner is None:
            return False
        rows = self.nests[place.owner].rows
        one_view = place.level is Level.ONE and not place.several
        return not rows and (one_view or place.level in (Level.TOP, Level.FULL))

    def _reduce_fits(self, node: UOp, place: _Place) -> bool:
        """Whether the kernel of the owner computes each result of this REDUCE exactly once."""
        if place.owner is None or place.level is Level.FREE or place.level is Level.FULL or place.padded:
            return False
        nest = self.nests[place.owner]
        axes, full = tuple(node.arg[1]), node.src[0].shape
        if nest.axes is not None:
            nest.reductions += 1
            if nest.reductions > MOST_REDUCTIONS:
                return False
        if place.level is Level.BELOW:
            if nest.axes is None:  # the owner's elements are the full rows
                if place.owner.shape != full or not _trailing(axes, full):
                    return False
                nest.axes, nest.shape, nest.rows = axes, full, True
                return True
            return nest.axes == axes and nest.shape == full and _trailing(axes, full)
        if nest.axes is not None and nest.shape is not None:
            same = place.level is Level.TOP and nest.axes == axes and nest.shape == full
            counts = [dims.upper(dims.product(shape)) for shape in (full, nest.shape, place.owner.shape)]
            short = counts[2] == 1 and max(counts) <= SHORT
            return not nest.rows and (short or (same and _trailing(axes, full)))
        nest.axes, nest.shape = axes, full
        return True

    # --- spreading to operands ----------------------------------------------------------------------------

    def _store(self, node: UOp) -> None:
        self.stored.add(node)
        nest = self.nests[node] = _Nest()
        if node.op is ops.REDUCE:
            nest.axes, nest.shape = tuple(node.arg[1]), node.src[0].shape
            self._mark(node.src[0], node, Level.FULL)
        elif node.op is ops.ASSIGN:
            self._mark(node.src[2], node, Level.TOP)
            self._mark(node.src[1], node, Level.FREE)
            self._mark(node.src[0], node, Level.FREE)
        elif node.op in (ops.SCATTER, ops.SCAN, ops.COPY, ops.CUSTOM):
            for operand in node.src:
                self._mark(operand, node, Level.FREE)
            if node.op is ops.COPY and self.buffered[node.src[0]] and _storage(node.src[0]).op not in LEAVES:
                self.stored.add(_storage(node.src[0]))
        else:
            self._spread(node, _Place(node, Level.TOP))

    def _spread(self, node: UOp, place: _Place) -> None:
        owner, level = place.owner, place.level
        if node.op.elementwise or node.op in (ops.CONTIGUOUS, ops.DETACH):
            for operand in dict.fromkeys(node.src):
                self._mark(operand, owner, level, place.view, place.several, place.padded)
        elif node.op is ops.REDUCE:
            self._mark(node.src[0], owner, Level.TOP if level is Level.BELOW else Level.FULL)
        elif node.op is ops.EXPAND:
            self._expand(node, owner, level)
        elif node.op in MOVEMENT:
            aligned = level in (Level.TOP, Level.ONE) and node.op in ONE_TO_ONE
            padded = place.padded or node.op is ops.PAD
            self._mark(node.src[0], owner, Level.ONE if aligned else Level.FREE, node, place.several, padded)
        else:
            for operand in node.src:
                self._mark(operand, owner, Level.FREE)

    def _expand(self, node: UOp, owner: UOp | None, level: Level) -> None:
        source = node.src[0]
        axes = tuple(
            [axis for axis, (a, b) in enumerate(zip(source.shape, node.shape, strict=True)) if a != b]
        )
        if owner is not None and level in (Level.TOP, Level.FULL) and _trailing(axes, node.shape):
            nest = self.nests[owner]
            full = nest.shape if level is Level.FULL or nest.shape is not None else owner.shape
            wanted = nest.axes if nest.axes is not None else axes
            if node.shape == full and set(axes) <= set(wanted):
                self._mark(source, owner, Level.BELOW)
                return
        repeated = dims.product(node.shape[axis] for axis in axes)
        place = self.places.get(node)
        inside = self._is_inside(owner, level) or (place is not None and place.inside)
        value = self._inside_padding(_computed(source))
        if (
            value is not None
            and self.buffered[value]
            and dims.upper(repeated) >= REUSE
            and (inside or self.cost[value] > DEAR)
            and dims.upper(dims.product(value.shape)) > 1
        ):
            self.stored.add(value)
        self._mark(source, owner, Level.FREE)

    def _is_inside(self, owner: UOp | None, level: Level) -> bool:
        """Whether the owner's kernel computes a value of this level for every step of a reduction."""
        return level is Level.FULL or (owner is not None and self.nests[owner].shape is not None)

    def _inside_padding(self, value: UOp | None) -> UOp | None:
        """What is filled up with another value than 0: storing that is storing less, and without its guards."""
        while value is not None and value.op is ops.WHERE:
            read = [operand for operand in value.src if self.buffered[operand]]
            if len(read) != 1 or read[0].op is not ops.PAD:
                break
            value = _computed(read[0])
        return value

    def _mark(
        self,
        node: UOp,
        owner: UOp | None,
        level: Level,
        view: UOp | None = None,
        several: bool = False,
        padded: bool = False,
    ) -> None:
        place = _Place(owner, level, self._is_inside(owner, level), view, several, padded)
        if node in self.places:
            self.places[node].merge(place)
        else:
            self.places[node] = place


def _trailing(axes: tuple[int, ...], shape: Shape) -> bool:
    """Whether the axes are the last ones, sizes of 1 aside."""
    real = [axis for axis in range(len(shape)) if shape[axis] != 1]
    wanted = [axis for axis in real if axis in axes]
    return bool(wanted) and real[len(real) - len(wanted) :] == wanted


def _storage(root: UOp) -> UOp:
    """What is stored for a root: RESHAPE is only a view."""
    while root.op is ops.RESHAPE:
        root = root.src[0]
    return root


def _computed(node: UOp) -> UOp | None:
    """The computed value below movement ops, or None when it is a plain view (a CAST is not worth storing)."""
    while node.op in MOVEMENT or node.op is ops.CAST:
        node = node.src[0]
    return node if node.op.elementwise else None


def _costs(order: list[UOp], stored: set[UOp]) -> dict[UOp, int]:
    """How many elementwise ops compute one element; chains that grow too long are cut by storing a value.

    A value that is used twice is counted once, unless it is seen through different movement ops: then its
    indices differ. The cut is below movement: what an EXPAND repeats is stored before it is repeated. What a
    reduction repeats is a loop of its own, and is not counted with what follows it.
    """
    cost: dict[UOp, int] = {}
    cones: dict[UOp, frozenset[UOp]] = {}
    reads: dict[UOp, frozenset[UOp]] = {}
    weights: dict[UOp, int] = {}
    for node in order:
        cost[node], cones[node] = 0, _EMPTY
        reads[node] = _EMPTY if node.op in (ops.CONST, ops.VARIABLE) else frozenset({node})
        if node.op in LEAVES or always_stored(node) or node.op is ops.REDUCE or node in stored:
            continue
        weights[node] = 8 if node.op in COSTLY else int(node.op.elementwise)
        while True:
            cone = _EMPTY.union(*[cones[operand] for operand in node.src])
            total = weights[node] + sum(weights[inner] for inner in cone)
            read = _EMPTY.union(*[reads[operand] for operand in node.src])
            if total <= LONGEST and len(read) <= MOST_READ:
                break
            by_cost = total > LONGEST
            value = max(node.src, key=lambda n: cost[n] if by_cost else len(reads[n]))
            while not value.op.elementwise:  # below movement
                cost[value], cones[value], reads[value] = 0, _EMPTY, frozenset({value})
                value = max(value.src, key=lambda n: cost[n] if by_cost else len(reads[n]))
            stored.add(value)
            cost[value], cones[value], reads[value] = 0, _EMPTY, frozenset({value})
        cost[node], reads[node] = total, read
        cones[node] = cone | {node}
        if not node.op.elementwise:
            weights[node], cones[node] = total, frozenset({node})
    return cost


_EMPTY: frozenset[UOp] = frozenset()


def _touching_memory(order: list[UOp]) -> dict[UOp, bool]:
    """Whether a value is computed from buffers at all (constants and index arithmetic are not)."""
    memory = ops.BUFFER.bit | ops.PARAM.bit
    return {node: bool(node.mask & memory) for node in order}
