"""The pipeline of one kernel, in one place: every pass named, with the level it takes and gives.

==============  ================  ====================================================================
pass            levels            what it does
==============  ================  ====================================================================
indexing        tensor, kernel    movement ops become index arithmetic (passes/movement.rules)
simplify        kernel, kernel    algebra and index rules to a fixpoint
(kernel)        kernel, kernel    plugin passes and rules of stage `kernel`
(tile)          kernel, kernel    plugin passes of stage `tile` choose actions (tinycore.codegen.tiling)
simplify tiles  kernel, kernel    the same rules, on the index arithmetic that tiling made
decompose       kernel, kernel    ops that the target lacks become ops that it has
(late)          kernel, kernel    plugin passes and rules of stage `late`
linearize       kernel, program   loops in order, lanes, accumulators
(program)       program, program  plugin passes and rules of stage `program`
==============  ================  ====================================================================
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tinycore.codegen.indexing import lower_indexing
from tinycore.codegen.linearize import linearize
from tinycore.ir import DType, Target, UOp, dtypes, ops
from tinycore.ir.ops import Level
from tinycore.rules import load
from tinycore.rules.doors import Observer, PassRun, extra_doors


class PluginPass(Protocol):
    """What the pipeline needs of a plugin's pass."""

    @property
    def id(self) -> str:
        """Its name in traces and errors."""

    @property
    def run(self) -> Callable[..., Any]:
        """``run(kernel, context) -> kernel``."""


@dataclass(frozen=True)
class Context:
    """What every pass may ask for.

    Attributes
    ----------
    target: what the kernel is compiled for.
    plugins: passes and rule files that plugins add, by stage, in the order they run.
    observers: called after every pass.
    """

    target: Target
    plugins: Mapping[str, Sequence[PluginPass]] = field(default_factory=dict)
    observers: tuple[Observer, ...] = ()


@dataclass(frozen=True, slots=True)
class PipelinePass:
    """One named step."""

    name: str
    takes: Level
    gives: Level
    run: Callable[[UOp, Context], UOp]


@functools.cache
def _rules(module: str, name: str) -> Callable[..., UOp]:
    return load(module).passes[name]


def _indexing(kernel: UOp, context: Context) -> UOp:
    return lower_indexing(kernel)


def _simplify(kernel: UOp, context: Context) -> UOp:
    return _rules("tinycore.passes.kernel", "simplify")(kernel)


def _decompose(kernel: UOp, context: Context) -> UOp:
    return _rules("tinycore.passes.decompose", "decompose")(kernel, context)


def _linearize(kernel: UOp, context: Context) -> UOp:
    return linearize(kernel, context.target, index_dtype(kernel, context.target))


BEFORE_TILE = (
    PipelinePass("indexing", "tensor", "kernel", _indexing),
    PipelinePass("simplify", "kernel", "kernel", _simplify),
)
AFTER_TILE = (PipelinePass("simplify tiles", "kernel", "kernel", _simplify),)
LOWERING = (PipelinePass("decompose", "kernel", "kernel", _decompose),)
LINEARIZE = (PipelinePass("linearize", "kernel", "program", _linearize),)


def passes(context: Context) -> Iterator[PipelinePass]:
    """All passes of one compilation, those of plugins and of `extra_rules` at their doors."""
    yield from BEFORE_TILE
    yield from _door("kernel", context)
    yield from _door("tile", context)
    yield from after_tile(context)


def after_tile(context: Context) -> Iterator[PipelinePass]:
    """What is left to do for a kernel whose tiling is decided; a search tries many on one kernel."""
    yield from AFTER_TILE
    yield from LOWERING
    yield from _door("late", context)
    yield from LINEARIZE
    yield from _door("program", context)


def _door(stage: str, context: Context) -> Iterator[PipelinePass]:
    level: Level = "program" if stage == "program" else "kernel"
    for plugin in (*context.plugins.get(stage, ()), *extra_doors(stage)):
        action = partial(_listed, plugin) if level == "program" else plugin.run
        yield PipelinePass(plugin.id, level, level, action)


def run(kernel: UOp, context: Context) -> UOp:
    """The LINEAR of a canonical kernel."""
    for step in passes(context):
        before, start = kernel, time.perf_counter()
        kernel = step.run(before, context)
        if context.observers:
            seconds = time.perf_counter() - start
            again = partial(step.run, before, context)
            seen = PassRun(step.name, step.takes, step.gives, before, kernel, seconds, again)
            for observer in context.observers:
                observer(seen)
    return kernel


def _listed(plugin: PluginPass, linear: UOp, context: Context) -> UOp:
    """A pass over a LINEAR; what it made and did not list is listed before its first use."""
    result: UOp = plugin.run(linear, context)
    if result is linear:
        return result
    listed, done = set(result.src), set[UOp]()
    order: list[UOp] = []
    for statement in result.src:
        for node in statement.toposort():
            if node not in done and node.op not in UNLISTED and (node is statement or node not in listed):
                done.add(node)
                order.append(node)
    return result.replace(src=tuple(order))


UNLISTED = frozenset({ops.CONST, ops.PARAM, ops.VARIABLE, ops.IOTA, ops.SCRATCH})
"""What stands in no list: it has a value from the start."""


def index_dtype(kernel: UOp, target: Target) -> DType:
    """The machine dtype of addresses: the first width that holds every intermediate, else 64 bits."""
    for bits in target.capabilities.index_bits:
        if bits == 64:
            break
        limit = 1 << (bits - 1)
        if all(
            -limit <= node.vmin and node.vmax < limit
            for node in kernel.toposort()
            if node.dtype is dtypes.index and node.op is not ops.SINK
        ):
            return {32: dtypes.int32, 16: dtypes.int16}[bits]
    return dtypes.int64
