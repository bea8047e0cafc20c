"""Kernel to program: place every value in the loop nest and write the nest down as a list.

A kernel is an expression over RANGEs. A node belongs to the innermost loop that it depends on, so
invariants (loads and whole reductions too) leave the loops by construction; softmax becomes one nest with
three inner loops. Ranges bound to lanes open no loop: a node that depends on a `vector` range is one value
with lanes, and one that depends on `unroll` ranges is one value for each of their combinations. Values stay
shaped; nothing is scalarised and put together again.

Addresses are sums of products. Unrolled ranges only change their constant term, so that all copies of a
load share one base, and a range of stride 1 makes a contiguous vector load.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tinycore.codegen.address import Address, address_of, splat, spread, summed
from tinycore.codegen.dots import dot
from tinycore.codegen.nest import (
    GRID_KINDS,
    Block,
    Environment,
    bodies_of,
    changing_loads,
    combinations,
    combined,
    constant_bound,
    final_value,
    flatten,
    id_of,
    kind_of,
    lanes_of,
    loops_among,
)
from tinycore.codegen.relayout import Picked, Relayout, relayout_of
from tinycore.codegen.running import previous_result
from tinycore.errors import CompileError
from tinycore.ir import DType, Target, UOp, dtypes, ops
from tinycore.ir.monoids import identity
from tinycore.ir.ops import Op
from tinycore.ir.statements import joint_statements


def linearize(kernel: UOp, target: Target, index_dtype: DType) -> UOp:
    """The LINEAR node of a kernel. `index_dtype` is the machine dtype of address arithmetic."""
    return _Linearizer(target, index_dtype).run(kernel)


class _Linearizer:
    """The state of one linearization: the path of open loops and what has been placed in each."""

    def __init__(self, target: Target, index_dtype: DType) -> None:
        self.target = target
        self.index_dtype = index_dtype
        self.path: list[Block] = [Block(None, None)]
        self.depth: dict[UOp, int] = {}
        self.range_depth: dict[UOp, int] = {}
        self.opened = itertools.count()
        self.accumulators = itertools.count()
        self.changing: frozenset[UOp] = frozenset()  # loads that may see another value next time
        self.running: dict[tuple[UOp, Environment], UOp] = {}
        self.unrolls: dict[UOp, tuple[UOp, ...]] = {}
        self.homes: dict[frozenset[UOp], int] = {}
        """Depths that were asked for since a loop was opened or closed."""
        self.addresses: dict[UOp, Address] = {}
        self.relayouts: dict[UOp, Relayout | Picked | None] = {}

    def run(self, kernel: UOp) -> UOp:
        """Statements in order, then the nest as one flat list."""
        order = kernel.toposort()
        for node in order:
            if node.op is not ops.SINK and sum(kind_of(r) == "vector" for r in node.ranges) > 1:
                raise CompileError("a value depends on two vector ranges", where=repr(node))
        self.changing = changing_loads(order)
        self._open_grid(kernel)
        for statements in joint_statements(kernel):
            self._root(statements)
        self._close_to(0)
        flat: list[UOp] = []
        flatten(self.path[0], flat)
        return UOp(ops.LINEAR, dtypes.void, tuple(flat), kernel.arg)

    def _open_grid(self, kernel: UOp) -> None:
        """Grid and work-item ids are read once, at the top."""
        grid = [node for node in kernel.toposort() if node.op is ops.RANGE and kind_of(node) in GRID_KINDS]
        for kind in ("global", "local"):
            for axis, node in enumerate(sorted((n for n in grid if kind_of(n) == kind), key=id_of)):
                bound = self._value(node.src[0], ())
                value = UOp(ops.RANGE, self.index_dtype, (bound,), (axis, kind))
                self._place(value, 0)
                self.path[0].values[node, ()] = value

    # --- loops --------------------------------------------------------------------------------------------

    def _enter(self, loops: Sequence[UOp]) -> None:
        """Open loops inside the innermost one."""
        for kernel_range in loops:
            bound = self._value(kernel_range.src[0], ())
            opening = UOp(ops.RANGE, self.index_dtype, (bound,), (next(self.opened), kind_of(kernel_range)))
            self.path.append(Block(kernel_range, opening))
            self.depth[opening] = self.range_depth[kernel_range] = len(self.path) - 1
            self.homes.clear()

    def _close_to(self, depth: int) -> None:
        """Close loops until `depth` of them are open."""
        while len(self.path) > depth + 1:
            block = self.path.pop()
            assert block.kernel_range is not None and block.opening is not None
            if block.barrier:  # what was staged must not be overwritten while others still read it
                block.items.append(UOp(ops.BARRIER, dtypes.void, (block.opening,)))
            del self.range_depth[block.kernel_range], self.depth[block.opening]
            self.homes.clear()
            for node in block.placed:
                self.depth.pop(node, None)
            self.path[-1].items.append(block)

    def _home(self, ranges: frozenset[UOp]) -> int:
        """Depth of the innermost open loop among these ranges."""
        known = self.homes.get(ranges)
        if known is None:
            known = max([self.range_depth[node] for node in ranges if node in self.range_depth], default=0)
            self.homes[ranges] = known
        return known

    def _place(self, node: UOp, depth: int | None = None) -> UOp:
        """List a value in the innermost loop of its operands (or at a given depth), once."""
        if depth is None:
            depth = max([self.depth.get(operand, 0) for operand in node.src], default=0)
        block = self.path[depth]
        if node not in block.placed:
            block.items.append(node)
            block.placed.add(node)
            self.depth[node] = depth
        return node

    # --- statements ---------------------------------------------------------------------------------------

    def _statements(self, bodies: Sequence[UOp]) -> list[UOp]:
        """Statements that a value waits for: STORE, END(STORE, ranges) or BARRIER(statement). Where their own
        ranges say, before the loop that is being built; in one another's loops where those are the same."""
        depth = self._home(bodies[0].ranges)
        if bodies[0].op is ops.BARRIER:
            stores = tuple(self._statements(bodies[0].src))
            self.path[depth].barrier = depth > 0
            return [self._place(UOp(ops.BARRIER, dtypes.void, stores), depth)]
        kept = self._suspend(depth)
        results = []
        for node in bodies:
            store, loops = (node.src[0], node.src[1:]) if node.op is ops.END else (node, ())
            if store.op is not ops.STORE:
                raise CompileError(f"{store.op.name} is not a statement of a kernel", where=repr(store))
            self._nest(loops_among(loops), depth)
            results.append(self._emit(self._pieces(store)))
        self._close_to(depth)
        self._resume(kept)
        return results

    def _suspend(self, depth: int) -> list[Block]:
        """Set aside the loops inside `depth`, so that a sibling loop can be written before them."""
        kept = self.path[depth + 1 :]
        del self.path[depth + 1 :]
        for block in kept:
            assert block.kernel_range is not None
            del self.range_depth[block.kernel_range]
        self.homes.clear()
        return kept

    def _resume(self, kept: list[Block]) -> None:
        for block in kept:
            assert block.kernel_range is not None
            self.path.append(block)
            self.range_depth[block.kernel_range] = len(self.path) - 1
        self.homes.clear()

    def _nest(self, loops: Sequence[UOp], depth: int = 0) -> None:
        """Open exactly these loops inside `depth`, keeping those outer ones that are open already."""
        shared = 0
        while shared < min(len(loops), len(self.path) - 1 - depth) and (
            self.path[depth + shared + 1].kernel_range is loops[shared]
        ):
            shared += 1
        self._close_to(depth + shared)
        self._enter(loops[shared:])

    def _root(self, statements: tuple[UOp, ...]) -> None:
        """A statement of the kernel in its loops, or several that happen together."""
        statement, loops = statements[0], loops_among(statements[0].ranges)
        previous = None if self._relayout(statement) else previous_result(statement, loops)
        if previous is None or len(statements) > 1:
            self._nest(loops)
            for pieces in [self._pieces(each) for each in statements]:
                self._emit(pieces)
            return
        self._nest(loops[:-1])
        lanes, depth = lanes_of(statement), len(self.path) - 1
        start = UOp.const(previous.dtype, 0, (lanes,) if lanes else ())
        for environment in self._environments(statement):
            register = UOp(ops.ACCUMULATOR, previous.dtype, (start,), next(self.accumulators))
            self.running[previous, self._restrict(previous, environment)] = self._place(register, depth)
        self._enter(loops[-1:])
        # What is computed from a register changes with it: its place is the loop, not where it was made.
        self.depth.update(dict.fromkeys(self.running.values(), depth + 1))
        self._emit(self._pieces(statement))
        for (_, environment), register in self.running.items():
            value = self._value(statement.src[2], environment)
            value = self._splat(value, lanes) if lanes else value
            self.path[-1].items.append(UOp(ops.UPDATE, dtypes.void, (register, value)))
        self.running.clear()

    def _pieces(self, node: UOp) -> list[tuple[UOp, ...]]:
        """The operands of all copies of a store."""
        relayout, environments = self._relayout(node), self._environments(node)
        value = node.src[2]
        if not isinstance(relayout, Relayout):
            return [self._store_operands(node, env, self._value(value, env)) for env in environments]
        lanes = relayout.lanes
        rows = relayout.stores(
            environments, lambda env: self._splat(self._value(value, env), lanes), self._place
        )
        return [self._store_operands(*row) for row in rows]

    def _emit(self, pieces: Sequence[tuple[UOp, ...]]) -> UOp:
        """Stores at the end of the innermost open loop; answers the last one."""
        return [self._append(UOp(ops.STORE, dtypes.void, piece)) for piece in pieces][-1]

    def _append(self, node: UOp) -> UOp:
        """List a node at the end of the innermost open loop, even if it is listed there already."""
        self.path[-1].items.append(node)
        self.path[-1].placed.add(node)
        self.depth[node] = len(self.path) - 1
        return node

    def _store_operands(self, node: UOp, environment: Environment, value: UOp) -> tuple[UOp, ...]:
        buffer = self._value(node.src[0], environment)
        position, lanes = self._address(node.src[1], environment)
        gate = self._value(node.src[3], environment)
        if lanes > 1 or position.shape:
            value = self._splat(value, lanes if lanes > 1 else int(position.shape[0]))  # type: ignore[arg-type]
        if gate.is_const and not gate.shape:
            return buffer, position, value, gate
        if value.shape and gate.shape != value.shape:
            gate = self._splat(gate, int(value.shape[0]))  # type: ignore[arg-type]
        return buffer, position, value, gate

    # --- values -------------------------------------------------------------------------------------------

    def _unrolled(self, node: UOp) -> tuple[UOp, ...]:
        found = self.unrolls.get(node)
        if found is None:
            # What memory waits for are all copies of a store, so the memory is the same for every copy.
            ranges = () if node.op is ops.AFTER else node.ranges
            found = tuple(sorted((r for r in ranges if kind_of(r) == "unroll"), key=id_of))
            self.unrolls[node] = found
        return found

    def _environments(self, node: UOp) -> list[Environment]:
        """Every combination of the unroll ranges that a node depends on."""
        return combinations(self._unrolled(node))

    def _restrict(self, node: UOp, environment: Environment) -> Environment:
        unrolled = self._unrolled(node)
        if len(unrolled) == len(environment):
            return environment
        if not unrolled:
            return ()
        return tuple([pair for pair in environment if pair[0] in unrolled])

    def _value(self, root: UOp, environment: Environment) -> UOp:
        """The program node of a kernel node; operands first, without recursion over elementwise depth."""
        result = self._known(root, environment)
        if result is not None:
            return result
        result, stack = root, [root]
        while stack:
            node = stack[-1]
            known = self._known(node, environment)
            if known is None:
                missing = [s for s in self._direct(node) if self._known(s, environment) is None]
                if missing:
                    stack.extend(missing)
                    continue
                env = self._restrict(node, environment)
                known = self._build(node, env)
                if node not in self.changing:
                    self.path[self._home(node.ranges)].values[node, env] = known
            result = known
            stack.pop()
        return result

    def _known(self, node: UOp, environment: Environment) -> UOp | None:
        block = self.path[self._home(node.ranges)]
        return block.values.get((node, self._restrict(node, environment)))

    def _direct(self, node: UOp) -> tuple[UOp, ...]:
        """Operands that are plain values and that `_build` would otherwise reach by recursion."""
        if not node.op.elementwise or (
            node.dtype is dtypes.index and node.op in _AFFINE and len(node.ranges)
        ):
            return ()
        return tuple([s for s in node.src if s.op.elementwise and s not in self.changing])

    def _build(self, node: UOp, environment: Environment) -> UOp:
        op = node.op
        if op is ops.CONST:
            return UOp(op, self._dtype(node), (), node.arg)
        if op in (ops.PARAM, ops.VARIABLE):
            return node if op is ops.PARAM else UOp(op, self.index_dtype, (), node.arg)
        if op is ops.RANGE:
            return self._range(node, environment)
        if op is ops.LOAD:
            return self._load(node, environment)
        if op is ops.REDUCE:
            self._reduce(node)
            return self.path[self._home(node.ranges)].values[node, environment]
        if op is ops.SCRATCH:
            return self._place(node, 0)
        if op is ops.AFTER:
            statements = itertools.chain.from_iterable(map(self._statements, bodies_of(node, self.changing)))
            after = UOp(op, node.dtype, (self._value(node.src[0], environment), *statements))
            return self._place(after, self._home(node.ranges))
        if node.dtype is dtypes.index and op in _AFFINE and not self._split(node).whole:
            base, lanes = self._affine_value(node, environment)
            return spread(base, *lanes, self._place) if lanes else base
        return self._elementwise(node, environment)

    def _dtype(self, node: UOp) -> DType:
        return self.index_dtype if node.dtype is dtypes.index else node.dtype

    def _range(self, node: UOp, environment: Environment) -> UOp:
        kind = kind_of(node)
        if kind == "unroll":
            for unrolled, value in environment:
                if unrolled is node:
                    return UOp.const(self.index_dtype, value)
            raise CompileError("the bound of a loop depends on an unrolled range", where=repr(node))
        if kind == "vector":
            return UOp(ops.IOTA, self.index_dtype, (), constant_bound(node.src[0]))
        if kind in GRID_KINDS:
            return self.path[0].values[node, ()]
        if node not in self.range_depth:
            raise CompileError("a range is used outside its loop", where=repr(node))
        opening = self.path[self.range_depth[node]].opening
        assert opening is not None
        return opening

    def _elementwise(self, node: UOp, environment: Environment) -> UOp:
        src = [self._value(operand, environment) for operand in node.src]
        lanes = max([int(s.shape[0]) for s in src if s.shape], default=0)  # type: ignore[arg-type]
        if lanes:
            src = [self._splat(s, lanes) for s in src]
        dtype = self._dtype(node)
        if node.op is ops.CAST and src[0].dtype is dtype:
            return src[0]
        return self._place(UOp(node.op, dtype, tuple(src), node.arg))

    def _splat(self, value: UOp, lanes: int) -> UOp:
        return splat(value, lanes, self._place)

    # --- addresses ----------------------------------------------------------------------------------------

    def _affine_value(self, node: UOp, environment: Environment) -> tuple[UOp, tuple[int, int] | None]:
        """An index expression as (base, (stride, lanes) of the vector range in it or None)."""
        address = self._split(node)
        constant, lanes = address.offset(environment), address.lanes
        base = self._base(node, address, environment)
        if constant or base is None:
            offset = UOp.const(self.index_dtype, constant)
            if base is None:
                base = offset
            elif base.shape:
                splat = self._splat(offset, int(base.shape[0]))  # type: ignore[arg-type]
                base = self._place(UOp(ops.ADD, self.index_dtype, (base, splat)))
            else:
                base = self._place(UOp(ops.ADD, self.index_dtype, (base, offset)))
        if lanes and base.shape:  # another atom has lanes of its own: one value with lanes
            return spread(base, *lanes, self._place), None
        return base, lanes

    def _split(self, node: UOp) -> Address:
        found = self.addresses.get(node)
        if found is None:
            found = self.addresses[node] = address_of(node, self._unrolled)
        return found

    def _base(self, node: UOp, address: Address, environment: Environment) -> UOp | None:
        """The sum of the terms that are computed; None where there are none."""
        if not address.terms:
            return None
        if any(atom in self.changing for atom, _ in address.terms):
            return self._sum(address.terms, environment)
        copy = tuple([pair for pair in environment if pair[0] in address.copies]) if address.copies else ()
        block = self.path[self._home(node.ranges)]
        found = block.bases.get((node, copy))
        if found is None:
            found = block.bases[node, copy] = self._sum(address.terms, environment)
        return found

    def _sum(self, terms: Sequence[tuple[UOp, int]], environment: Environment) -> UOp:
        products = [(self._value(atom, environment), factor) for atom, factor in terms]
        return summed(products, self.index_dtype, lambda value: self.depth.get(value, 0), self._place)

    def _address(self, node: UOp, environment: Environment) -> tuple[UOp, int]:
        """Where to load or store: (scalar start, lanes) for neighbours, (index with lanes, 1) to gather."""
        base, lanes = self._affine_value(node, environment)
        if lanes is None:
            return base, 1
        stride, count = lanes
        if stride == 1:
            return base, count
        if stride == 0:
            return base, 1
        return spread(base, stride, count, self._place), 1

    def _relayout(self, node: UOp) -> Relayout | Picked | None:
        """How an access is made in rows; None where it is better left, or shuffles are not to be had."""
        if node not in self.relayouts:
            self.relayouts[node] = relayout_of(node) if self.target.has(ops.SHUFFLE) else None
        return self.relayouts[node]

    def _load(self, node: UOp, environment: Environment) -> UOp:
        if (node, environment) in self.running:
            return self.running[node, environment]
        relayout = None if node in self.changing else self._relayout(node)
        if relayout is not None:
            copies = relayout.load(environment, self._value, self._place)
            known = self.path[self._home(node.ranges)].values
            known.update({(node, copy): value for copy, value in copies.items()})
            return copies[environment]
        buffer = self._value(node.src[0], environment)
        position, lanes = self._address(node.src[1], environment)
        gate = self._value(node.src[2], environment)
        if gate.shape and lanes == 1 and not position.shape:
            position = self._splat(position, int(gate.shape[0]))  # type: ignore[arg-type]
        if not gate.is_const and not gate.shape and (lanes > 1 or position.shape):
            gate = self._splat(gate, lanes if lanes > 1 else int(position.shape[0]))  # type: ignore[arg-type]
        load = UOp(ops.LOAD, node.dtype, (buffer, position, gate), lanes)
        if node in self.changing:
            return self._append(load)
        return self._place(load)

    # --- reductions ---------------------------------------------------------------------------------------

    def _reduce(self, node: UOp) -> None:
        """One loop nest for all copies of a reduction; the results are known to its block afterwards."""
        op: Op = node.arg[0]
        consumed = node.src[1:]
        loops = loops_among(consumed)
        copies = sorted((r for r in consumed if kind_of(r) == "unroll"), key=id_of)
        lanes = [constant_bound(r.src[0]) for r in consumed if kind_of(r) == "vector"]
        depth = self._home(node.ranges)
        environments = self._environments(node)
        inner = combinations(copies)
        # Few results: each copy keeps its own accumulator, to hide the latency of the operation.
        separate = len(environments) < 8 and len(inner) > 1 and bool(loops)
        kept = self._suspend(depth)
        width = lanes[0] if lanes else lanes_of(node)
        start = UOp.const(node.dtype, identity(op, node.dtype), (width,) if width else ())
        accumulators = {
            (env, copy if separate else ()): self._place(
                UOp(ops.ACCUMULATOR, node.dtype, (start,), next(self.accumulators)), depth
            )
            for env in environments
            for copy in (inner if separate else [()])
        }
        self._enter(loops)
        for copy in inner:
            for env in environments:
                both = tuple(sorted(env + copy, key=lambda pair: id_of(pair[0])))
                accumulator = accumulators[env, copy if separate else ()]
                self._accumulate(node, accumulator, both, width)
        innermost = self.path[-1].opening if loops else None
        self._close_to(depth)
        for env in environments:
            parts = [
                self._place(final_value(accumulators[env, copy], innermost), depth)
                for copy in (inner if separate else [()])
            ]
            result = combined(op, parts, lambda node: self._place(node, depth))
            if lanes:
                result = self._place(UOp(ops.LANE_REDUCE, node.dtype, (result,), op), depth)
            self.path[depth].values[node, env] = result
        self._resume(kept)

    def _accumulate(self, node: UOp, accumulator: UOp, environment: Environment, width: int) -> None:
        depth, op, value = len(self.path) - 1, node.arg[0], node.src[0]
        fused = op is ops.ADD and value.op is ops.MUL and value.dtype.is_float and self.target.has(ops.FMA)
        step = dot(node, accumulator, width, lambda node: self._value(node, environment), self._place)
        if step is None:
            # The order of a reduction is unspecified, and so is its rounding.
            parts = [self._value(part, environment) for part in (value.src if fused else (value,))]
            parts = [self._splat(part, width) for part in parts] if width else parts
            src = (*parts, accumulator) if fused else (accumulator, *parts)
            step = self._place(UOp(ops.FMA if fused else op, accumulator.dtype, src), depth)
        update = UOp(ops.UPDATE, dtypes.void, (accumulator, step))
        self.path[depth].items.append(update)


_AFFINE = frozenset({ops.ADD, ops.SUB, ops.MUL, ops.NEG})
