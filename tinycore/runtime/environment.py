"""What plugins add to a process, as the compiler and the runtime see it.

The rooms below `tinycore.plugin` may not import it, so the plugin layer hands its result down: it builds
one immutable `Environment`, at the first call of `environment()`, through a loader that `tinycore` itself
installs. From then on reading it costs a look-up; no hook is called on the compile or launch path.

This module imports nothing but the standard library and the errors.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from tinycore.errors import PluginError

if TYPE_CHECKING:
    from tinycore.ir import Target, UOp
    from tinycore.rules.doors import Observer
    from tinycore.runtime.buffer import Buffer
    from tinycore.runtime.device import Device

Stage: TypeAlias = Literal["tensor", "schedule", "kernel", "tile", "late", "program"]
"""The fixed doors at which passes and rules enter, in the order they run."""

STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One kind of device that a plugin adds.

    >>> BackendSpec("SIM", 10, open=lambda: None, compile_target=None).name
    'SIM'
    """

    name: str
    """What a person types: `DEV=NAME`."""
    priority: int
    """The highest priority whose device opens becomes the default device."""
    open: Callable[[], Device]
    """Opens the device. Raises `BackendUnavailable` when there is none, or when it cannot open one."""
    compile_target: Callable[[str | None], Target] | None = None
    """Describes an architecture (`"sm_90"`, None for a sensible default) with no device present."""
    compile_only: bool = False
    """True when the plugin cannot open a device at all; such a backend is never the default."""


@dataclass(frozen=True, slots=True)
class PassSpec:
    """One compiler pass that a plugin adds.

    `before` and `after` are soft: ids that are not installed are ignored. `requires` is hard: the pass is
    left out, with a recorded reason, when one of them is missing.

    >>> PassSpec("fold", "kernel", run=lambda graph, *context: graph, before=("tile",)).optional
    True
    """

    id: str
    stage: Stage
    run: Callable[..., Any]
    """`run(graph, context)` returns the graph that replaces it."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    optional: bool = True
    """Results stay right without it; CI removes such passes to prove that."""


@dataclass(frozen=True, slots=True)
class RuleSource:
    """One `.rules` file that joins a stage, in a named group.

    >>> RuleSource(Path("my.rules"), "late", "my").stage
    'late'
    """

    path: Path
    stage: Stage
    group: str


@dataclass(frozen=True, slots=True)
class FrontendSpec:
    """A loader of model files.

    >>> FrontendSpec("csv", load=lambda path, **options: path, suffixes=(".csv",)).suffixes
    ('.csv',)
    """

    name: str
    load: Callable[..., Any]
    """`load(path, **options)` returns the model."""
    suffixes: tuple[str, ...] = ()
    """File suffixes it answers for."""


class Validation(Protocol):
    """What checks the compiler; everything raises ValidationError where a meaning has changed."""

    def kernel(self, target: Target) -> Observer:
        """What is told about the passes over one kernel (`tinycore.rules.doors.Observer`)."""

    def tensors(self) -> Observer:
        """What is told about the passes over a tensor graph."""

    def launch(
        self,
        kernel: UOp,
        device: str,
        buffers: Sequence[Buffer],
        bindings: Mapping[UOp, int],
        launch: Callable[[], None],
    ) -> None:
        """Launch, and look at what it wrote."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Everything installed plugins add, already checked and in order. Immutable.

    >>> Environment().passes_at("tile")
    ()
    """

    backends: Mapping[str, BackendSpec] = field(default_factory=lambda: MappingProxyType({}))
    """By name, highest priority first."""
    passes: Mapping[Stage, tuple[PassSpec, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By stage, in the order they run."""
    rules: Mapping[Stage, tuple[RuleSource, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By stage, in the order of plugin ids."""
    frontends: Mapping[str, FrontendSpec] = field(default_factory=lambda: MappingProxyType({}))
    """By name."""
    versions: tuple[tuple[str, str], ...] = ()
    """Distribution and version of every plugin in use: part of every cache key."""
    sources: tuple[Path, ...] = ()
    """Folders of the packages whose code or rules can change what a kernel becomes; for cache keys."""
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Backends that are installed but unusable, and why; for the error of whoever asks for one by name."""
    validation: Callable[[], Validation | None] | None = None
    """What checks the compiler while `TINYCORE_VALIDATE=1`."""
    select_device: Callable[[tuple[str, ...]], str | None] | None = None
    """Lets a plugin choose the default among the names of the devices that open; None: priorities decide."""
    observers: tuple[Callable[[Mapping[str, Any]], None], ...] = ()
    """Called with each event while tracing; they never raise."""

    def passes_at(self, stage: Stage) -> tuple[PassSpec, ...]:
        """The passes of a stage, in the order they run."""
        return self.passes.get(stage, ())

    def rules_at(self, stage: Stage) -> tuple[RuleSource, ...]:
        """The rule files of a stage."""
        return self.rules.get(stage, ())


_lock = threading.RLock()
_loader: Callable[[], Environment] = Environment
_loaded: Environment | None = None
_loading = False
_overridden: ContextVar[Environment | None] = ContextVar("tinycore_environment", default=None)


def set_loader(loader: Callable[[], Environment]) -> None:
    """Say who builds the environment. Whatever was built before is forgotten."""
    global _loader, _loaded
    with _lock:
        _loader, _loaded = loader, None


def environment() -> Environment:
    """What plugins add to this process; built at the first call.

    Raises PluginError when a plugin asks for it while it is itself being loaded.

    >>> from tinycore.runtime.environment import environment
    >>> environment() is environment()
    True
    """
    global _loaded, _loading
    overridden = _overridden.get()
    if overridden is not None:
        return overridden
    if _loaded is None:
        with _lock:
            if _loading:  # only this thread can get here: the lock is held while loading
                hint = "move the code that uses devices or passes out of the top level of the module"
                raise PluginError("a plugin used the plugins while it was being imported", hint=hint)
            if _loaded is None:
                _loading = True
                try:
                    _loaded = _loader()
                finally:
                    _loading = False
    return _loaded


def validation() -> Validation:
    """What checks the compiler. Raises PluginError where no plugin does."""
    find = environment().validation
    found = find() if find is not None else None
    if found is None:
        raise PluginError(
            "TINYCORE_VALIDATE is set, and nothing can check", hint="pip install tinycore-tools-validate"
        )
    return found


def reset() -> None:
    """Forget the environment, so that the next use sees plugins that were installed or disabled since."""
    global _loaded
    with _lock:
        _loaded = None


@contextlib.contextmanager
def override_environment(replacement: Environment) -> Iterator[Environment]:
    """Use another environment in a block, in this thread or task only (tests, cross-compilation)."""
    token = _overridden.set(replacement)
    try:
        yield replacement
    finally:
        _overridden.reset(token)
