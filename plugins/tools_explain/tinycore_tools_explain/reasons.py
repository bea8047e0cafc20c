"""What a kernel does and why it is one, in words: for reports, derived from a finished schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from tinycore.ir import Shape, UOp, ops
from tinycore.ir.ops import MOVEMENT
from tinycore.schedule.steps import KernelStep, Schedule

_ASKED = "its result was asked for"
_ALWAYS = {
    ops.CONTIGUOUS: "it was asked to be stored (contiguous)",
    ops.COPY: "it is copied to another device",
    ops.ASSIGN: "it changes a buffer in place",
    ops.SCATTER: "it is written at indices that are known only when it runs",
    ops.SCAN: "each element needs the one before it",
    ops.CUSTOM: "it is computed by a function of its own",
}


def reasons(schedule: Schedule) -> dict[UOp, str]:
    """For every kernel's value why it is stored instead of being computed by its users' kernels."""
    steps = [step for step in schedule.steps if isinstance(step, KernelStep)]
    stored = {node: buffer for step in steps for node, buffer in zip(step.nodes, step.buffers, strict=False)}
    wanted = {node for result in schedule.results for node in result.toposort() if node.op is ops.BUFFER}
    users: dict[UOp, list[list[UOp]]] = {node: [] for node in stored}
    for node in stored:
        for below, path in _boundary(node, stored).items():
            users[below].append(path)
    return {node: _reason(node, buffer in wanted, users[node]) for node, buffer in stored.items()}


def _boundary(node: UOp, stored: Mapping[UOp, object]) -> dict[UOp, list[UOp]]:
    """The stored values that a kernel reads, each with one path of nodes that leads there."""
    found: dict[UOp, list[UOp]] = {}
    parent: dict[UOp, UOp] = dict.fromkeys(node.src, node)
    stack = list(node.src)
    while stack:
        current = stack.pop()
        if current in stored:
            path, at = [], parent[current]
            while at is not node:
                path.append(at)
                at = parent[at]
            found[current] = [*path, node]
            continue
        for operand in current.src:
            if operand not in parent:
                parent[operand] = current
                stack.append(operand)
    return found


def _reason(node: UOp, wanted: bool, users: list[list[UOp]]) -> str:
    if node.op in _ALWAYS:
        return _ALWAYS[node.op]
    if wanted:
        return _ASKED
    if len(users) > 1:
        again = (
            "would be summed up again in each" if node.op is ops.REDUCE else "would be computed again in each"
        )
        return f"{len(users)} kernels read it, and it {again}"
    path = users[0] if users else []
    moved = [each.op.name for each in path if each.op in MOVEMENT]
    through = f" (through {', '.join(dict.fromkeys(moved))})" if moved else ""
    inside = any(each.op is ops.REDUCE for each in path)
    if inside and node.op is ops.REDUCE:
        return f"a reduction{through} reads it, and one kernel does not reduce what it has just reduced"
    if inside:
        return f"the reduction that reads it{through} needs each element more than once"
    if node.op is ops.REDUCE:
        return f"its user{through} does not have the rows that it sums up"
    if ops.EXPAND in {each.op for each in path}:
        return f"each element is read several times{through}, and computing it is dear"
    return "one kernel would get too long"


def describe(kernel: UOp) -> list[str]:
    """What a canonical kernel does, one sentence a line."""
    lines = []
    for statement in kernel.src:
        below = statement.toposort()
        target = statement.src[0]
        reads = [node for node in below if node.op is ops.PARAM and node is not target]
        lines.append("reads " + (", ".join(_memory(node) for node in reads) or "nothing"))
        moved = _counted(node.op.name for node in below if node.op in MOVEMENT)
        if moved:
            lines.append(f"moves by index arithmetic: {moved}")
        pending: list[str] = []
        for node in below:
            if node.op is ops.REDUCE:
                lines.extend(_computes(pending))
                axes = ", ".join(str(axis) for axis in node.arg[1])
                lines.append(f"reduces axes ({axes}) of {_shape(node.src[0].shape)} by {node.arg[0].name}")
                pending = []
            elif node.op.elementwise or node.op in (ops.GATHER, ops.SCAN, ops.SCATTER):
                pending.append(node.op.name)
            elif node.op is ops.CONTIGUOUS:
                lines.extend(_computes(pending))
                lines.append(f"keeps rows of {_shape(node.shape)} to itself")
                pending = []
        lines.extend(_computes(pending))
        lines.append(f"writes {_memory(target)}")
    return lines


def _computes(names: list[str]) -> list[str]:
    return [f"computes {_counted(names)}"] if names else []


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(name if count == 1 else f"{name} x{count}" for name, count in counts.items())


def _memory(parameter: UOp) -> str:
    if parameter.op is not ops.PARAM:
        return parameter.op.name
    return f"buffer {parameter.arg[0]}: {parameter.dtype.name} {_shape(parameter.arg[1])}"


def _shape(shape: Shape) -> str:
    return f"({', '.join(str(dim) if isinstance(dim, int) else dim_text(dim) for dim in shape)})"


def dim_text(dim: UOp) -> str:
    """A symbolic dimension as an expression."""
    from tinycore.ir.text import summary

    return summary(dim)
