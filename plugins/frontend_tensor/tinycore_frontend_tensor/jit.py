"""`@jit`: run a function once, capture what it runs, replay that from then on, with no Python in between.

The first call runs as usual; the second is captured; later calls replay the captured kernels with the
buffers of the new arguments. Tensors in arguments (in lists, dicts and objects, too) are matched by position
and must keep shape, dtype and device; symbolic sizes may be bound to other values. Everything else in the
arguments is part of the program: another value captures again.

What the function leaves behind without returning it (parameters, optimizer state, random counters) is
updated by every replay. What it returns is a value: a result that is still referenced keeps its elements
when the function runs again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, cast

from tinycore.errors import ShapeError, TinycoreError
from tinycore.ir import Shape, UOp
from tinycore.runtime.capture import Recording, capture
from tinycore_frontend_tensor import execution, graph, runtime
from tinycore_frontend_tensor.core import live_tensors
from tinycore_frontend_tensor.symbolic import NO_BINDINGS, Bindings, Dimension, merge
from tinycore_frontend_tensor.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_MOST_PROGRAMS = 32


@dataclass(frozen=True, slots=True)
class _Input:
    """What an argument tensor must be like."""

    path: str
    shape: Shape
    dtype: object
    device: str

    def check(self, name: str, given: Tensor) -> None:
        if given.uop.shape != self.shape or given.dtype is not self.dtype:
            raise ShapeError(
                f"{name}() was captured with {self.path} of shape {graph.text(self.shape)} and {self.dtype}, "
                f"and is called with shape {graph.text(given.shape)} and dtype {given.dtype}",
                hint="pad to one shape, use a symbolic size (Variable), or make another jit function",
            )
        if given.device != self.device:
            raise TinycoreError(
                f"{name}() was captured with {self.path} on {self.device}, and is called with one on "
                f"{given.device}",
                hint=f"x.to({self.device!r})",
            )


@dataclass(frozen=True, slots=True)
class _Program:
    """One captured run of a function."""

    recording: Recording
    inputs: tuple[_Input, ...]
    result: Any
    """What was returned, with `_Output` in the place of tensors."""
    written: frozenset[UOp]
    """BUFFER nodes whose contents a replay changes."""


@dataclass(frozen=True, slots=True)
class _Output:
    """A returned tensor: its node, or the number of the argument that it is."""

    node: UOp
    argument: int | None


class Jit(Generic[P, R]):
    """A captured function; see the module. ``reset()`` forgets what was captured."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._name = getattr(function, "__name__", "function")
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forget all captured programs; the next call runs as usual."""
        self._seen: set[Any] = set()
        self._programs: dict[Any, _Program] = {}

    @property
    def recordings(self) -> list[Recording]:
        """What has been captured, for reports."""
        return [program.recording for program in self._programs.values()]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self.__call__, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run, capture or replay.

        Raises ShapeError for arguments of another shape or dtype, TinycoreError for a function that reads
        values on the host.
        """
        if execution.capturing():  # inside another captured function: part of it
            return self._function(*args, **kwargs)
        with self._lock:
            tensors, fixed = _take_apart(args, kwargs)
            execution.realize(
                list(tensors.values())
            )  # and every pending write, which is no part of the function
            key = (fixed, _aliases(tensors))
            program = self._programs.get(key)
            if program is not None:
                return cast(R, self._replay(program, tensors))
            if key not in self._seen:
                if len(self._seen) >= _MOST_PROGRAMS:
                    raise TinycoreError(
                        f"{self._name}() was called with {_MOST_PROGRAMS} different sets of arguments "
                        "that are not tensors",
                        hint="pass what changes at every call as a Tensor",
                    )
                result = self._run(args, kwargs)
                self._seen.add(key)
                return result
            return self._capture(key, tensors, args, kwargs)

    def _run(self, args: Any, kwargs: Any) -> R:
        with execution.watch():
            result = self._function(*args, **kwargs)
        _realize_result(result)
        return result

    def _capture(self, key: Any, tensors: Mapping[str, Tensor], args: Any, kwargs: Any) -> R:
        inputs = tuple([_Input(path, t.uop.shape, t.dtype, t.device) for path, t in tensors.items()])
        nodes = [_stored(tensor) for tensor in tensors.values()]
        with capture() as recording, execution.watch() as written:
            result = self._function(*args, **kwargs)
            _realize_result(result)
        recording.declare_inputs([runtime.buffer_of(node) for node in dict.fromkeys(nodes)])
        positions = {node: place for place, node in reversed(list(enumerate(nodes)))}

        def describe(tensor: Tensor) -> _Output:
            return _Output(tensor.uop, positions.get(_stored(tensor)))

        template = _map_tensors(result, describe)
        returned = {id(tensor) for tensor in _tensors_in(result)}
        execution.follow_replays(
            [t for t in live_tensors() if execution.stored(t.uop) in written and id(t) not in returned]
        )
        self._programs[key] = _Program(recording, inputs, template, frozenset(written))
        return result

    def _replay(self, program: _Program, tensors: Mapping[str, Tensor]) -> Any:
        given = list(tensors.values())
        for expected, tensor in zip(program.inputs, given, strict=True):
            expected.check(self._name, tensor)
        execution.protect(program.written)
        bindings: Bindings = merge([tensor.bindings for tensor in given]) if given else NO_BINDINGS
        nodes = dict.fromkeys([_stored(tensor) for tensor in given])
        program.recording.replay([runtime.buffer_of(node) for node in nodes], dict(bindings))

        def rebuild(output: _Output) -> Tensor:
            if output.argument is not None:
                return given[output.argument]
            return Tensor.of_node(output.node, bindings, execution.device_of(output.node))

        return _map_outputs(program.result, rebuild)


def jit(function: Callable[P, R]) -> Jit[P, R]:
    """Capture a function of tensors and replay it; see the module.

    >>> from tinycore import Tensor, jit
    >>> @jit
    ... def double(x):
    ...     return x * 2
    >>> [double(Tensor([float(k)])).item() for k in range(4)]
    [0.0, 2.0, 4.0, 6.0]
    """
    return Jit(function)


def _stored(tensor: Tensor) -> UOp:
    node = execution.stored(tensor.uop)
    assert node is not None, "realized before"
    return node


def _aliases(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Which arguments are the same buffer as an earlier one: part of what is captured."""
    first: dict[UOp, int] = {}
    return tuple([first.setdefault(_stored(tensor), place) for place, tensor in enumerate(tensors.values())])


def _take_apart(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """The tensors in arguments by their path, and everything else in a form that can be compared."""
    tensors: dict[str, Tensor] = {}
    fixed: list[Any] = []

    def walk(value: Any, path: str, above: frozenset[int]) -> None:
        if isinstance(value, Tensor):
            tensors[path] = value
            fixed.append((path, value.requires_grad))
        elif isinstance(value, Dimension):
            fixed.append((path, value.node))
        elif id(value) in above:
            fixed.append((path, "cycle"))
        elif isinstance(value, (list, tuple)):
            fixed.append((path, type(value), len(value)))
            for place, part in enumerate(value):
                walk(part, f"{path}[{place}]", above | {id(value)})
        elif isinstance(value, dict):
            fixed.append((path, tuple(map(repr, value))))
            for name, part in value.items():
                walk(part, f"{path}[{name!r}]", above | {id(value)})
        elif isinstance(value, (bool, int, float, str, bytes, type(None))):
            fixed.append((path, type(value), repr(value) if isinstance(value, float) else value))
        elif hasattr(value, "__dict__") and not callable_or_class(value):
            fixed.append((path, type(value)))
            for name, part in vars(value).items():
                walk(part, f"{path}.{name}", above | {id(value)})
        else:
            fixed.append((path, _Same(value)))

    for place, value in enumerate(args):
        walk(value, f"argument {place}", frozenset())
    for name in sorted(kwargs):
        walk(kwargs[name], f"argument {name!r}", frozenset())
    return tensors, tuple(fixed)


def callable_or_class(value: Any) -> bool:
    """Functions and classes are compared as a whole, not searched for tensors."""
    return isinstance(value, type) or hasattr(value, "__code__") or hasattr(value, "__func__")


class _Same:
    """Compares by identity, and keeps the object alive so that its identity stays its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_map_tensors(part, function) for part in value])
    if isinstance(value, (list, tuple)):
        return type(value)([_map_tensors(part, function) for part in value])
    if isinstance(value, dict):
        return {name: _map_tensors(part, function) for name, part in value.items()}
    return value


def _map_outputs(value: Any, function: Callable[[_Output], Tensor]) -> Any:
    if isinstance(value, _Output):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_map_outputs(part, function) for part in value])
    if isinstance(value, (list, tuple)):
        return type(value)([_map_outputs(part, function) for part in value])
    if isinstance(value, dict):
        return {name: _map_outputs(part, function) for name, part in value.items()}
    return value


def _tensors_in(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map_tensors(value, found.append)
    return found


def _realize_result(result: Any) -> None:
    tensors: list[Tensor] = _tensors_in(result)
    execution.realize(tensors)
