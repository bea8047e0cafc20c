"""Stored values that one kernel stores together: elementwise ones of equal shape that read the same elements.

An optimizer step is the example: the averages and the parameter are one pass over memory instead of three. Each
iteration of such a kernel computes one element of every value before it stores them, and reads nothing that
another iteration writes. Who reads a value of the same kernel computes it: in each iteration that is done once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tinycore.ir import Shape, UOp, dims, ops, substitute
from tinycore.schedule.fuse import LONGEST, MOST_READ
from tinycore.schedule.kernels import Builder, Task

MOST_STORES = 8
"""Most values that one kernel stores."""
SMALL = 4
"""What is not read element by element must have so many times fewer elements: it is read again and again."""
FEW = 1 << 10
"""Elements that stay in a cache anyway."""

_OTHER = (
    ops.REDUCE.bit | ops.SCAN.bit | ops.SCATTER.bit | ops.GATHER.bit | ops.CUSTOM.bit | ops.COPY.bit
) | ops.CONTIGUOUS.bit


@dataclass(frozen=True, slots=True)
class _Part:
    """One statement of a joint kernel.

    Attributes
    ----------
    task: where it comes from.
    statement: its ASSIGN; the new values of other parts are computed in it again.
    written: the buffer that it is stored in.
    aligned: the buffers of which each iteration reads its own element.
    others: the buffers that are read in any other way.
    """

    task: Task
    statement: UOp
    written: UOp
    aligned: frozenset[UOp]
    others: frozenset[UOp]

    @property
    def reads(self) -> frozenset[UOp]:
        """All buffers that it reads."""
        return self.aligned | self.others


@dataclass(slots=True)
class _Place:
    """One kernel of the schedule under construction: the parts that are joined, or a task that stays alone."""

    tasks: list[Task]
    parts: list[_Part] = field(default_factory=list)
    read: frozenset[UOp] = frozenset()
    written: frozenset[UOp] = frozenset()


def join_tasks(
    tasks: Sequence[Task], builder: Builder, wanted: Collection[UOp], alone: Collection[UOp]
) -> list[Task]:
    """The tasks, given in an order in which they can run, with those joined that one pass over memory serves.

    A task joins an earlier kernel if it could run as early, or if that could run as late. What nobody reads any
    more, because all of its users have joined, is not stored; the BUFFERs in `wanted` are read by others. The
    values in `alone` are not joined.
    """
    joiner = _Joiner(builder)
    for task in tasks:
        joiner.add(task, task.node not in alone)
    places = [place for place in joiner.places if place is not None]
    needed = set(wanted).union(*[place.read for place in places])
    return [_joint(place, needed) for place in places]


def _joint(place: _Place, needed: Collection[UOp]) -> Task:
    """The task of a place: as it was, or one for all of its parts."""
    first = place.tasks[0]
    if len(place.parts) < 2:
        return first
    parts = [part for part in place.parts if part.task.node.op is ops.ASSIGN or part.written in needed]
    reads = dict.fromkeys(read for task in place.tasks for read in task.reads)
    own = {task.node for task in place.tasks}
    return Task(
        parts[0].task.node,
        parts[0].task.buffer,
        tuple([read for read in reads if read not in own]),
        tuple([part.statement for part in parts]),
        tuple([part.task.node for part in parts[1:]]),
    )


class _Joiner:
    """The kernels so far, and where each buffer was read and written last."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.places: list[_Place | None] = []
        self.last_read: dict[UOp, int] = {}
        self.last_written: dict[UOp, int] = {}
        self.users: dict[tuple[UOp, Shape], int] = {}
        """The last kernel that reads or writes a buffer element by element, with loops over that shape."""

    def home(self, buffer: UOp) -> UOp:
        """The buffer that a version lives in."""
        return self.builder.homes.get(buffer, buffer)

    def add(self, task: Task, joins: bool) -> None:
        """The next task, in a kernel that is there or in its own."""
        part = self._part(task, task.body[0]) if joins and _is_elementwise(task) else None
        if part is not None:
            shape = part.statement.src[1].shape
            found = {self.users.get((buffer, shape), -1) for buffer in part.aligned}
            for place in sorted(found - {-1}, reverse=True):
                if self._join(place, task, part, shape):
                    return
        self.places.append(None)
        self._put(len(self.places) - 1, self._alone(task, part))

    def _alone(self, task: Task, part: _Part | None) -> _Place:
        if part is not None:
            return _Place([task], [part], part.reads, frozenset({part.written}))
        below = [node for statement in task.body for node in statement.toposort() if node.op is ops.BUFFER]
        return _Place([task], [], frozenset(map(self.home, below)), frozenset({self.home(task.buffer)}))

    def _put(self, position: int, place: _Place) -> None:
        self.places[position] = place
        for buffer in place.read:
            self.last_read[buffer] = max(self.last_read.get(buffer, -1), position)
        for buffer in place.written:
            self.last_written[buffer] = max(self.last_written.get(buffer, -1), position)
        for part in place.parts:
            for buffer in (*part.aligned, part.written):
                self.users[buffer, part.statement.src[1].shape] = position

    def _join(self, position: int, task: Task, part: _Part, shape: Shape) -> bool:
        """Whether the task could be joined with the kernel at a position."""
        place = self.places[position]
        if place is None or not place.parts or place.tasks[0].buffer.arg[2] != task.buffer.arg[2]:
            return False
        early = self._last_conflict(part.reads, frozenset({part.written})) <= position
        if not early and self._last_conflict(place.read, place.written) > position:
            return False
        parts = self._together(place.parts, task, part)
        if parts is None:
            return False
        joined = _Place(
            [*place.tasks, task],
            parts,
            frozenset().union(*[each.reads for each in parts]),
            frozenset([each.written for each in parts]),
        )
        if not early:
            self.places[position] = None
            position = len(self.places)
            self.places.append(None)
        self._put(position, joined)
        return True

    def _last_conflict(self, read: frozenset[UOp], written: frozenset[UOp]) -> int:
        """The last kernel that must come before one which reads and writes these buffers."""
        return max(
            [
                *[self.last_written.get(buffer, -1) for buffer in (*read, *written)],
                *[self.last_read.get(buffer, -1) for buffer in written],
            ]
        )

    def _together(self, parts: list[_Part], task: Task, part: _Part) -> list[_Part] | None:
        """The parts with one more; None where they cannot share their loops."""
        new = {self.builder.buffer_of(each.task.node): each for each in parts}
        written = frozenset([each.written for each in parts])
        if part.written in written or part.others & written:
            return None
        if any(part.written in each.others for each in parts):
            return None
        used = {buffer: each.statement.src[2] for buffer, each in new.items()}
        (statement,) = substitute((part.statement.src[2],), used)
        whole = part.statement.replace(src=(*part.statement.src[:2], statement))
        last = self._part(task, whole)
        if last is None or _too_long([*parts, last]):
            return None
        return [*parts, last]

    def _part(self, task: Task, statement: UOp) -> _Part | None:
        """A statement as a part; None where it reads much in another order than its own."""
        base, _, value = statement.src
        aligned, others = _reads(value)
        total = dims.upper(dims.product(base.shape))
        if any(SMALL * dims.upper(dims.product(buffer.shape)) > max(total, FEW) for buffer in others):
            return None
        homes = frozenset(map(self.home, aligned)), frozenset(map(self.home, others))
        return _Part(task, statement, self.home(base), *homes) if total > 1 else None


def _is_elementwise(task: Task) -> bool:
    """Whether a task computes each element of a whole buffer from elements of others; not where it was asked for."""
    if len(task.body) != 1 or task.body[0].op is not ops.ASSIGN or task.node.op is ops.CONTIGUOUS:
        return False
    base, view, value = task.body[0].src
    return view is base and value.op.elementwise and not value.mask & _OTHER


def _reads(value: UOp) -> tuple[set[UOp], set[UOp]]:
    """The BUFFERs of which each element of a value reads its own element, and those that it reads otherwise.

    Axes may be exchanged if they are exchanged back.
    """
    aligned, others = set[UOp](), set[UOp]()
    straight = tuple(range(len(value.shape)))
    stack: list[tuple[UOp, tuple[int, ...] | None]] = [(value, straight)]
    seen = set(stack)
    while stack:
        node, axes = stack.pop()
        if node.op is ops.BUFFER:
            (aligned if axes == straight else others).add(node)
            continue
        if not node.mask & ops.BUFFER.bit:
            continue
        below = axes
        if node.op is ops.PERMUTE and axes is not None:
            below = tuple([axes[node.arg.index(axis)] for axis in range(len(axes))])
        elif not node.op.elementwise and node.op is not ops.DETACH:
            below = None
        for operand in node.src:
            if (operand, below) not in seen:
                seen.add((operand, below))
                stack.append((operand, below))
    return aligned, others


def _too_long(parts: Sequence[_Part]) -> bool:
    buffers = {buffer for part in parts for buffer in (*part.reads, part.written)}
    if len(parts) > MOST_STORES or len(buffers) > MOST_READ:
        return True
    nodes = {node for part in parts for node in part.statement.src[2].toposort()}
    return sum(node.op.elementwise for node in nodes) > LONGEST
