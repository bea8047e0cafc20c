"""The verifier of the program level: the list of a LINEAR node, in the order in which it runs."""

from __future__ import annotations

from tinycore.errors import VerifyError
from tinycore.ir import dims
from tinycore.ir.ops import ops
from tinycore.ir.uop import UOp
from tinycore.ir.verify import LOOP_KINDS, RANGE_KINDS, Invalid, check_one, in_context

_LEAVES = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
"""What needs not be listed: it has a value from the start."""

_MEMORY = frozenset({ops.PARAM, ops.SCRATCH})


def check_list(linear: UOp) -> None:
    """Raise VerifyError unless the list can be run from top to bottom.

    Values are computed before they are used and in a block that is still open, loops and IFs are closed in
    the reverse order of their opening, lanes agree, grid ids are read outside of loops, accumulators alone
    are updated.
    """
    blocks = _Blocks()
    for node in linear.src:
        check_one(node, blocks.step)
    if blocks.opened:
        raise VerifyError(f"{blocks.opened[-1].op.name}: never closed", where=in_context(blocks.opened[-1]))


class _Blocks:
    """The blocks that are open and what is known in each; the outermost first."""

    def __init__(self) -> None:
        self.opened: list[UOp] = []
        self.known: list[set[UOp]] = [set()]
        self.happened: set[UOp] = set()

    def step(self, node: UOp) -> None:
        """Check one entry of the list and take note of what it does."""
        self._check_operands(node)
        _check_lanes(node)
        if node.op is ops.RANGE:
            self._range(node)
        elif node.op is ops.IF:
            self.opened.append(node)
            self.known.append(set())
        elif node.op in (ops.END, ops.ENDIF):
            self._close(node)
        elif node.op is ops.UPDATE and node.src[0].op is not ops.ACCUMULATOR:
            raise Invalid(f"only an accumulator is updated, not {node.src[0].op.name}")
        elif node.op in (ops.LINEAR, ops.SINK):
            raise Invalid("lists do not nest")
        self.known[-1].add(node)
        self.happened.add(node)

    def _check_operands(self, node: UOp) -> None:
        for position, operand in enumerate(node.src):
            if operand.op in _LEAVES or any(operand in known for known in self.known):
                continue
            if node.op is ops.AFTER and position and node.src[0].op is not ops.ACCUMULATOR:
                continue  # another name for memory: the order of the list is the order of accesses
            waits = node.op is ops.BARRIER or (node.op is ops.AFTER and position)
            if waits and operand in self.happened:
                continue
            where = "in a block that is closed" if operand in self.happened else "nowhere above"
            raise Invalid(f"operand {position} ({operand.op.name}) is computed {where}")

    def _range(self, node: UOp) -> None:
        kind = node.arg[1]
        if kind not in RANGE_KINDS["program"]:
            raise Invalid(f"there is no kind of range {kind!r}")
        if kind in LOOP_KINDS:
            self.opened.append(node)
            self.known.append(set())
        elif self.opened:
            raise Invalid(f"a {kind} range is read at the top, outside of loops")

    def _close(self, node: UOp) -> None:
        if not self.opened or self.opened[-1] is not node.src[0]:
            raise Invalid("closes what is not the innermost open block")
        self.opened.pop()
        self.known.pop()


def _check_lanes(node: UOp) -> None:
    op = node.op
    if op in (ops.LOAD, ops.STORE):
        _check_access(node)
    elif op is ops.SPLAT and node.src[0].shape:
        raise Invalid("its operand has lanes already")
    elif op is ops.SHUFFLE:
        _check_shuffle(node)
    elif op is ops.DOT:
        _check_dot(node)
    elif op is ops.LANE_REDUCE and len(node.src[0].shape) != 1:
        raise Invalid("its operand has no lanes")
    elif op is ops.UPDATE and node.src[0].shape != node.src[1].shape:
        raise Invalid(f"the accumulator has shape {node.src[0].shape}, the value {node.src[1].shape}")
    elif op in (ops.RANGE, ops.IF) and node.src[0].shape:
        raise Invalid("its operand is a scalar")
    elif len(node.shape) > 1 and op not in _MEMORY and op is not ops.AFTER:
        raise Invalid(f"a value has at most one axis of lanes, not the shape {node.shape}")


def _check_shuffle(node: UOp) -> None:
    shapes = [operand.shape for operand in node.src]
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise Invalid(
            f"its operands have as many lanes as each other, not the shapes {shapes[0]}, {shapes[1]}"
        )
    if not node.arg or any(not 0 <= place < 2 * shapes[0][0] for place in node.arg):
        raise Invalid(f"the indices {node.arg} are not lanes of two operands of shape {shapes[0]}")


def _check_dot(node: UOp) -> None:
    lanes, left, right = (operand.shape for operand in node.src)
    whole = len(lanes) == len(left) == 1 and dims.upper(left[0]) % dims.upper(lanes[0]) == 0
    if not whole or left != right:
        raise Invalid(f"groups for lanes of shape {lanes} do not come in the shapes {left}, {right}")


def _check_access(node: UOp) -> None:
    memory = node.src[0].under(ops.AFTER)
    if memory.op not in _MEMORY:
        raise Invalid(f"its buffer is {memory.op.name}, which is no memory")
    shape = node.shape if node.op is ops.LOAD else node.src[2].shape
    index, gate = node.src[1].shape, node.src[-1].shape
    if index not in ((), shape):
        raise Invalid(f"the index has shape {index}, the value {shape}")
    if gate not in ((), shape):
        raise Invalid(f"the guard has shape {gate}, the value {shape}")
