"""The text of an `Explanation`, for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinycore.errors import TinycoreError, did_you_mean
from tinycore.ir import UOp
from tinycore.ir.text import print_graph
from tinycore.rules.tracing import show
from tinycore.runtime.report import show_bytes
from tinycore.schedule import nbytes
from tinycore_tools_explain.explain import Explanation, Kernel, Stage, copies

RULES_SHOWN = 6
"""Rules of one pass that are listed; `trace` shows every rewrite."""


@dataclass(frozen=True, slots=True)
class View:
    """What to show.

    Attributes
    ----------
    kernel: only the kernel of this number.
    stage: also the graph after the pass of this name, or of all passes (``"all"``).
    code: also the generated code.
    trace: every rewrite.
    """

    kernel: int | None = None
    stage: str | None = None
    code: bool = False
    trace: bool = False


def report(explanation: Explanation, view: View | None = None) -> str:
    """The whole report. Raises TinycoreError for a kernel or a stage that there is not."""
    view = view or View()
    chosen = choose(explanation, view)
    parts = [*_tensor_part(explanation, view), *_schedule_part(explanation)]
    for kernel in chosen:
        parts.extend(_kernel_part(kernel, view, whole=len(chosen) == 1))
    if len(chosen) > 1:
        parts.append("\n(--kernel N shows the program of one kernel, --stage NAME a graph, --code the code)")
    parts.extend(f"\nnote: {note}" for note in explanation.notes)
    return "\n".join(parts)


def choose(explanation: Explanation, view: View) -> Sequence[Kernel]:
    """The kernels to show. Raises TinycoreError, with the nearest name, for a stage or kernel not there."""
    kernels = explanation.kernels
    if view.kernel is not None:
        if not 0 <= view.kernel < len(kernels):
            there = f"0 to {len(kernels) - 1}" if kernels else "none: nothing has to be computed"
            raise TinycoreError(f"there is no kernel {view.kernel}", hint=f"the kernels are {there}")
        kernels = (kernels[view.kernel],)
    if view.stage is not None and view.stage != "all":
        names = [stage.name for stage in explanation.stages]
        names += [stage.name for kernel in kernels for stage in kernel.stages]
        if view.stage not in names:
            known = ", ".join([*dict.fromkeys(names), "all"])
            hint = did_you_mean(view.stage, names)
            raise TinycoreError(
                f"there is no stage {view.stage!r}", where=f"stages: {known}", hint=hint or "--stage all"
            )
    return kernels


# --- parts ------------------------------------------------------------------------------------------------


def _title(text: str) -> str:
    return f"\n== {text}"


def _indent(lines: Iterable[str], by: str = "  ") -> list[str]:
    return [f"{by}{line}" for line in lines]


def _graph(graph: UOp) -> list[str]:
    return _indent(print_graph(graph).splitlines())


def _tensor_part(explanation: Explanation, view: View) -> Iterator[str]:
    yield _title(f"tensor graph: {len(explanation.graph.toposort())} nodes")[1:]
    yield from _graph(explanation.graph)
    yield _title("passes over the tensor graph")
    yield from _stages(explanation.stages, view)


def _schedule_part(explanation: Explanation) -> Iterator[str]:
    kernels, copied = explanation.kernels, copies(explanation.schedule)
    sizes: dict[int, int] = {}
    for node, slot in explanation.schedule.slots:
        sizes[slot] = max(sizes.get(slot, 0), nbytes(node))
    temporary = f", {show_bytes(sum(sizes.values()))} of temporary memory" if sizes else ""
    plural = "kernel" if len(kernels) == 1 else "kernels"
    yield _title(
        f"schedule: {len(kernels)} {plural}" + (f", {len(copied)} copies" if copied else "") + temporary
    )
    for kernel in kernels:
        yield f"  {kernel.number}  {kernel.name} on {kernel.device}"
        yield f"     a kernel because {kernel.why}" if kernel.why else ""
        yield from _indent(kernel.does, "     ")
        if kernel.origins:
            yield "     from " + ", ".join(_relative(origin) for origin in kernel.origins)
    for copy in copied:
        yield f"  copy  {show_bytes(nbytes(copy.source))} from {copy.source.arg[2]} to {copy.target.arg[2]}"


def _kernel_part(kernel: Kernel, view: View, *, whole: bool) -> Iterator[str]:
    yield _title(f"kernel {kernel.number}: {kernel.name}")
    if kernel.program is None:
        yield "  interpreted: the tensor-level statements are executed with numpy"
        if whole:
            yield from _graph(kernel.step.kernel)
    else:
        yield from _stages(kernel.stages, view)
        yield "  tiling: " + ("" if kernel.actions else "none")
        yield from _indent((str(action) for action in kernel.actions), "    ")
        program = kernel.program
        grid = " x ".join(str(size) for size in program.grid) or "1"
        group = f", work-groups of {' x '.join(map(str, program.group))}" if program.group else ""
        yield f"  program: {len(program.linear.src)} statements, grid {grid}{group}"
        if whole:
            yield from _indent(_listing(program.linear), "    ")
        if view.code and kernel.code is not None:
            yield "  code:"
            yield from _indent(kernel.code.rstrip().splitlines(), "    ")
    if kernel.time is not None:
        yield f"  time: {str(kernel.time)[len(kernel.device) :].replace(kernel.name, '').strip()}"


def _stages(stages: Sequence[Stage], view: View) -> Iterator[str]:
    width = max([len(stage.name) for stage in stages], default=0)
    for stage in stages:
        before, after = len(stage.before.toposort()), len(stage.after.toposort())
        counts = f"{before} -> {after} nodes" if stage.after is not stage.before else "unchanged"
        rewrites = f", {len(stage.events)} rewrites" if stage.events else ""
        time = f"{stage.seconds * 1e3:7.2f} ms"
        yield f"  {stage.name:<{width}}  {stage.level:<7}  {counts:<18} {time}{rewrites}"
        if view.trace:
            yield from _indent(
                (f"{e.rule.name}: {show(e.before)} -> {show(e.after)}" for e in stage.events), "      "
            )
        elif stage.events:
            yield "      " + _fired(stage)
        if view.stage in (stage.name, "all"):
            yield from _indent(print_graph(stage.after).splitlines(), "      ")


def _fired(stage: Stage) -> str:
    counted = stage.rules().most_common()
    shown = [
        f"{rule.name} x{count} ({_file(rule.path)}:{rule.line})" for rule, count in counted[:RULES_SHOWN]
    ]
    more = [f"{len(counted) - RULES_SHOWN} more rules"] if len(counted) > RULES_SHOWN else []
    return ", ".join([*shown, *more])


def _file(path: str) -> str:
    return Path(path).name


def _relative(origin: str) -> str:
    path, _, line = origin.rpartition(":")
    try:
        return f"{Path(path).relative_to(Path.cwd())}:{line}"
    except ValueError:
        return origin


def _listing(linear: UOp) -> list[str]:
    """The statements of a program, loops indented."""
    from tinycore.ir import ops
    from tinycore.ir.text import line, order

    names = {node: f"%{number}" for number, node in enumerate(order(linear))}
    lines, depth = [], 0
    for node in linear.src:
        if node.op in (ops.END, ops.ENDIF):
            depth = max(0, depth - 1)
        text = line(node, _Named(names))
        lines.append(
            f"{'  ' * depth}{names[node]} = {text}" if node.dtype.name != "void" else "  " * depth + text
        )
        if node.op is ops.IF or (node.op is ops.RANGE and node.arg[1] not in ("global", "local")):
            depth += 1
    return lines


class _Named(dict[UOp, str]):
    """Names of nodes; constants and parameters, which no list holds, are written out."""

    def __init__(self, names: dict[UOp, str]) -> None:
        super().__init__(names)
        for node in names:
            if node.op.name == "CONST":
                self[node] = str(node.value)
            elif node.op.name == "PARAM":
                self[node] = f"buffer{node.arg[0]}"
            elif node.op.name == "VARIABLE":
                self[node] = str(node.arg[0])
