"""The pipeline of one kernel, in one place: every pass named, with the level it takes and gives.

==============  ===============  ====================================================================
pass            levels           what it does
==============  ===============  ====================================================================
indexing        tensor, kernel   movement ops become index arithmetic (passes/movement.rules)
simplify        kernel, kernel   algebra and index rules to a fixpoint
(kernel)        kernel, kernel   plugin passes and rules of stage `kernel`
(tile)          kernel, kernel   plugin passes of stage `tile` choose actions (tinycore.codegen.tiling)
simplify tiles  kernel, kernel   the same rules, on the index arithmetic that tiling made
decompose       kernel, kernel   ops that the target lacks become ops that it has
(late)          kernel, kernel   plugin passes and rules of stage `late`
linearize       kernel, program  loops in order, lanes, accumulators
==============  ===============  ====================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinycore.codegen.indexing import lower_indexing
from tinycore.codegen.linearize import linearize
from tinycore.ir import DType, Target, UOp, dtypes, ops
from tinycore.ir.ops import Level
from tinycore.rules import active_extra, load


class PluginPass(Protocol):
    """What the pipeline needs of a plugin's pass."""

    @property
    def id(self) -> str:
        """Its name in traces and errors."""

    @property
    def run(self) -> Callable[..., Any]:
        """``run(kernel, context) -> kernel``."""


Observer = Callable[[str, Level, UOp, UOp], None]
"""Called as ``observer(pass name, level, before, after)``: explain and validation."""


@dataclass(frozen=True)
class Context:
    """What every pass may ask for.

    Attributes
    ----------
    target: what the kernel is compiled for.
    plugins: passes that plugins add, by stage, in the order they run.
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
    yield from AFTER_TILE
    yield from LOWERING
    yield from _door("late", context)
    yield from LINEARIZE


def _door(stage: str, context: Context) -> Iterator[PipelinePass]:
    for plugin in context.plugins.get(stage, ()):
        yield PipelinePass(plugin.id, "kernel", "kernel", plugin.run)
    for extra in active_extra(stage):
        yield PipelinePass(getattr(extra, "name", stage), "kernel", "kernel", lambda k, c, extra=extra: extra(k, c))


def run(kernel: UOp, context: Context) -> UOp:
    """The LINEAR of a canonical kernel."""
    for step in passes(context):
        result = step.run(kernel, context)
        for observer in context.observers:
            observer(step.name, step.gives, kernel, result)
        kernel = result
    return kernel


def index_dtype(kernel: UOp, target: Target) -> DType:
    """The machine dtype of address arithmetic: the first width that holds every intermediate, else 64 bits."""
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
