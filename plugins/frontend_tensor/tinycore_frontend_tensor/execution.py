"""Realizing tensors: what has to run together, and which old values must survive in-place writes.

A lazy tensor means the values at the moment it was written down. In-place assignment makes a new *version*
of a buffer; running it destroys the old one. So, before anything runs, every live tensor that still needs
the old version is given its value: the tensor itself is computed in the same schedule, or, where that would
be larger than the buffer, the buffer is copied first.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence, Set
from contextvars import ContextVar
from types import MappingProxyType

from tinycore.errors import BindingError, TinycoreError
from tinycore.ir import UOp, dims, ops, substitute, toposort
from tinycore_frontend_tensor import graph, runtime
from tinycore_frontend_tensor.core import TensorCore, live_tensors, pending_writers
from tinycore_frontend_tensor.device import Device
from tinycore_frontend_tensor.symbolic import Bindings, merge

_definitions: weakref.WeakKeyDictionary[UOp, UOp] = weakref.WeakKeyDictionary()
_stale: weakref.WeakSet[UOp] = weakref.WeakSet()
_SNAPSHOT_ELEMENTS = 8
"""Overwritten buffers up to this size (random counters) are kept for later gradients."""


_watched: ContextVar[set[UOp] | None] = ContextVar("tinycore_watched", default=None)
_reads_allowed: ContextVar[bool] = ContextVar("tinycore_reads_allowed", default=True)
_followers: dict[int, weakref.ref[TensorCore]] = {}


@contextlib.contextmanager
def watch() -> Iterator[set[UOp]]:
    """Collects the BUFFER nodes that are written in a block; reading values on the host is an error there."""
    written: set[UOp] = set()
    tokens = _watched.set(written), _reads_allowed.set(False)
    try:
        yield written
    finally:
        _watched.reset(tokens[0])
        _reads_allowed.reset(tokens[1])


def capturing() -> bool:
    """Whether this runs inside a `jit` function."""
    return _watched.get() is not None


def check_host_read() -> None:
    """Raises TinycoreError inside a `jit` function: a replay would not see what the host decides."""
    if not _reads_allowed.get():
        raise TinycoreError(
            "a jit function reads the values of a tensor on the host (item, numpy, tolist, bool, mask)",
            hint="return the tensor and read it outside, or choose with where()",
        )


def definition(buffer: UOp) -> UOp | None:
    """The graph that a realized node came from, where gradients may need it.

    Raises TinycoreError when an in-place write has destroyed what the graph reads.
    """
    if buffer in _stale:
        raise TinycoreError(
            "backward() needs values that were changed in place since they were used",
            hint="call backward() before the in-place update, or compute the loss again",
        )
    return _definitions.get(buffer)


def stored(node: UOp) -> UOp | None:
    """The BUFFER that a node is, seen through DETACH and RESHAPE; None when it has to be computed."""
    while node.op in (ops.DETACH, ops.RESHAPE):
        node = node.src[0]
    return node if node.op is ops.BUFFER else None


def base_buffer(version: UOp) -> UOp:
    """The BUFFER below a chain of ASSIGNs."""
    while version.op is ops.ASSIGN:
        version = version.src[0]
    return version


def realize(tensors: Sequence[TensorCore]) -> None:
    """Compute tensors, and run every in-place write that is pending in the program, in one schedule.

    Where that fails, what was asked for is tried alone: somebody else's broken write is not in the way.
    """
    wanted = [tensor for tensor in tensors if stored(tensor.uop) is None]
    bindings = merge([tensor.bindings for tensor in wanted])
    chosen = {id(tensor): tensor for tensor in wanted}
    for tensor in pending_writers():
        if id(tensor) in chosen:
            continue
        try:
            bindings = merge((bindings, tensor.bindings))
            chosen[id(tensor)] = tensor
        except BindingError:  # another step of a symbolic program: it runs by itself, first
            _run([tensor], tensor.bindings)
    if not chosen:
        return
    try:
        _run(list(chosen.values()), bindings)
    except TinycoreError:
        if not wanted or len(wanted) == len(chosen):
            raise
        _run(wanted, merge([tensor.bindings for tensor in wanted]))


def _run(tensors: list[TensorCore], bindings: Bindings) -> None:
    if any(tensor.uop.mask & ops.ASSIGN.bit for tensor in tensors):
        _run_with_writes(tensors, bindings)
        return
    known = any(map(_is_known_elsewhere, tensors))
    roots = [_root(tensor) for tensor in tensors]
    results = dict(zip(roots, runtime.realize(roots, bindings), strict=True))
    watched = _watched.get()
    if watched is not None:
        watched.update(b for b in map(stored, results.values()) if b is not None)
    if known:
        _settle(dict(zip(tensors, roots, strict=True)), results, results, set())
    else:
        for tensor, root in zip(tensors, roots, strict=True):
            _become(tensor, results[root])


def _is_known_elsewhere(tensor: TensorCore) -> bool:
    """Whether another graph may hold the tensor's node: a live tensor's, or one that gradients need.

    Where nobody else refers to a node, nobody has to be told of its result.
    """
    if (tensor.requires_grad and not tensor.is_leaf) or sys.getrefcount(tensor.uop) > _ONE_OWNER:
        return True
    node = tensor.uop
    while node.op is ops.DETACH:
        if sys.getrefcount(node.src[0]) > _ONE_OWNER:
            return True
        node = node.src[0]
    return False


def _references_of_an_owner() -> int:
    owner = TensorCore.__new__(TensorCore)
    owner.uop = UOp.variable("", 0, 0)
    return sys.getrefcount(owner.uop)


_ONE_OWNER = _references_of_an_owner()
"""What counts as a node that one tensor refers to, in this interpreter."""


def _run_with_writes(tensors: list[TensorCore], bindings: Bindings) -> None:
    tensors = [tensor for tensor in tensors if stored(tensor.uop) is None]
    _separate_branches()
    while True:  # what is computed beside may write, too
        roots = {tensor: _root(tensor) for tensor in tensors}
        finals = _final_versions(roots.values())
        overwritten = {base_buffer(final) for final in finals}
        extra, snapshots = _keep_old_values(tensors, finals, overwritten)
        if not extra:
            break
        tensors = [*tensors, *extra]
    copied: dict[UOp, UOp] = {}
    for tensor, root in roots.items():
        if root.op is ops.ASSIGN and root not in finals:  # an old version: a buffer of its own
            roots[tensor] = copied[root] = _copy(root)
    # Every write below is a root too: whoever else refers to it must not run it again.
    nodes = list(dict.fromkeys([*roots.values(), *snapshots.values(), *finals]))
    results = dict(zip(nodes, runtime.realize(nodes, dict(bindings)), strict=True))
    watched = _watched.get()
    if watched is not None:
        watched.update(overwritten)
        watched.update(b for b in map(stored, results.values()) if b is not None)
    replaced = {old: results[copy] for old, copy in {**copied, **snapshots}.items()}
    replaced.update({root: results[root] for root in nodes})
    _settle(roots, results, replaced, finals)


def _root(tensor: TensorCore) -> UOp:
    """What has to be computed: without outer DETACHs, on the tensor's own device."""
    node = tensor.uop
    while node.op is ops.DETACH:
        node = node.src[0]
    if not node.mask & (ops.BUFFER.bit | ops.COPY.bit) and tensor.device != Device.DEFAULT:
        # Made of constants only: nothing in the graph says where it lives.
        node = UOp(ops.COPY, node.dtype, (node,), tensor.device)
    return node


def _settle(
    roots: dict[TensorCore, UOp], results: dict[UOp, UOp], replaced: dict[UOp, UOp], finals: set[UOp]
) -> None:
    """Point every live tensor at what has been computed, and remember graphs for `backward`."""
    overwritten = {base_buffer(final) for final in finals}
    old = {tensor: tensor.uop for tensor in roots}
    others = [tensor for tensor in _concerned(overwritten) if tensor not in roots]
    for tensor, node in zip(others, substitute([t.uop for t in others], replaced), strict=True):
        tensor.uop = node
    for tensor, root in roots.items():
        _become(tensor, results[root])
    kept = dict(_definitions)
    for tensor, root in roots.items():
        buffer = stored(results[root])
        if tensor.requires_grad and not tensor.is_leaf and buffer is not None:
            kept.setdefault(buffer, graph.reshape(old[tensor], buffer.shape))
    for buffer, source in kept.items():
        below = source.src[0] if source.op is ops.RESHAPE and source not in replaced else source
        lost = _reads(source, finals, overwritten) - replaced.keys()
        if lost:
            _definitions.pop(buffer, None)
            _stale.add(buffer)
        else:
            inner = {key: value for key, value in replaced.items() if key is not below}
            _definitions[buffer] = source.substitute(inner)


def _become(tensor: TensorCore, result: UOp) -> None:
    """Point a tensor at its elements."""
    tensor.uop = UOp(ops.DETACH, result.dtype, (result,)) if tensor.uop.op is ops.DETACH else result
    if tensor.bindings:  # only the sizes are still symbolic
        left = dims.variables(result.shape)
        tensor.bindings = MappingProxyType({v: n for v, n in tensor.bindings.items() if v in left})


def _concerned(overwritten: Set[UOp]) -> Iterator[TensorCore]:
    """Live tensors but for those that are stored in other buffers, which are most in a program with weights."""
    buffer = ops.BUFFER
    for tensor in live_tensors():
        node = tensor.uop
        if node.op is buffer:
            if node in overwritten:
                yield tensor
        elif (base := stored(node)) is None or base in overwritten:
            yield tensor


# --- versions of buffers
# --------------------------------------------------------------------------------------


def _final_versions(roots: Iterable[UOp]) -> set[UOp]:
    """The last ASSIGN of every buffer that is written below the roots."""
    finals: dict[UOp, UOp] = {}
    for node in toposort(roots):
        if node.op is ops.ASSIGN:  # operands come first: later versions replace earlier ones
            finals[base_buffer(node)] = node
    return set(finals.values())


def _separate_branches() -> None:
    """Where two tensors were assigned apart from one version, the second one continues on a copy."""
    while True:
        readers = [tensor for tensor in live_tensors() if tensor.uop.mask & ops.ASSIGN.bit]
        readers.sort(key=lambda tensor: tensor.uop.op is not ops.ASSIGN)  # owners of storage keep it
        branch = _second_branch(readers)
        if branch is None:
            return
        base, view, value = branch.src
        copy = _copy(base)
        moved = UOp(ops.ASSIGN, branch.dtype, (copy, view.substitute({base: copy}), value))
        for tensor, node in zip(readers, substitute([t.uop for t in readers], {branch: moved}), strict=True):
            tensor.uop = node


def _second_branch(tensors: list[TensorCore]) -> UOp | None:
    successor: dict[UOp, UOp] = {}
    for node in toposort([tensor.uop for tensor in tensors]):
        if node.op is ops.ASSIGN and successor.setdefault(node.src[0], node) is not node:
            return node
    return None


def own(value: UOp, device: str) -> UOp:
    """A new version of a fresh buffer: a node that no other graph shares, with the given value."""
    buffer = runtime.empty(value.dtype, value.shape, device)
    return UOp(ops.ASSIGN, value.dtype, (buffer, buffer, value))


def _copy(version: UOp) -> UOp:
    """The elements of a version of a buffer, in a buffer of their own."""
    return own(version, base_buffer(version).arg[2])


def _reads(node: UOp, finals: set[UOp], overwritten: set[UOp]) -> set[UOp]:
    """Which old versions of overwritten buffers a graph reads, other than through their final versions."""
    found: set[UOp] = set()
    seen = {node}
    stack = [node]
    while stack:
        current = stack.pop()
        if current in finals:
            continue
        if current.op is ops.ASSIGN:
            if base_buffer(current) in overwritten:
                found.add(current)
                continue
        elif current in overwritten:
            found.add(current)
        for operand in current.src:
            if operand not in seen and operand.mask & (ops.BUFFER.bit | ops.ASSIGN.bit):
                seen.add(operand)
                stack.append(operand)
    return found


def _keep_old_values(
    tensors: list[TensorCore], finals: set[UOp], overwritten: set[UOp]
) -> tuple[list[TensorCore], dict[UOp, UOp]]:
    """What else to compute now: tensors that read old versions, and copies (old version -> its copy)."""
    extra: list[TensorCore] = []
    snapshots: dict[UOp, UOp] = {}
    if not overwritten:
        return extra, snapshots
    chosen = {id(tensor) for tensor in tensors}

    def snapshot(versions: set[UOp]) -> None:
        for version in versions:
            snapshots[version] = _copy(version)

    for tensor in _concerned(overwritten):
        if id(tensor) in chosen or not tensor.uop.mask & ops.BUFFER.bit:
            continue
        versions = _reads(tensor.uop, finals, overwritten)
        if not versions:
            continue
        if stored(tensor.uop) is not None or _elements(tensor.uop) > sum(map(_elements, versions)):
            snapshot(versions)
        else:
            extra.append(tensor)
    kept = [*_definitions.values(), *(t.uop for t in tensors if t.requires_grad and not t.is_leaf)]
    for source in kept:
        snapshot({v for v in _reads(source, finals, overwritten) if _elements(v) <= _SNAPSHOT_ELEMENTS})
    return extra, snapshots


def _elements(node: UOp) -> int:
    return dims.upper(graph.size_of(node.shape))


# --- captured functions
# ---------------------------------------------------------------------------------------


def device_of(node: UOp) -> str | None:
    """The device of a stored node."""
    buffer = stored(node)
    return None if buffer is None else str(buffer.arg[2])


def follow_replays(tensors: Iterable[TensorCore]) -> None:
    """These tensors show the result of the last replay of a captured function."""
    for tensor in tensors:
        _followers[id(tensor)] = weakref.ref(tensor)


def protect(written: frozenset[UOp]) -> None:
    """Before a replay writes buffers: tensors that are values, and read them, get their elements now."""
    copied: dict[UOp, UOp] = {}
    readers: list[TensorCore] = []
    for tensor in _concerned(written):
        if not tensor.uop.mask & ops.BUFFER.bit:
            continue
        reference = _followers.get(id(tensor))
        if reference is not None and reference() is tensor:
            continue
        buffer = stored(tensor.uop)
        if buffer in written:
            versions = {buffer}
        else:
            versions = set() if buffer is not None else _reads(tensor.uop, set(), set(written))
        if versions:
            copied.update({version: _copy(version) for version in versions if version not in copied})
            readers.append(tensor)
    if copied:
        bindings = merge([tensor.bindings for tensor in readers])
        results = runtime.realize(list(copied.values()), dict(bindings))
        exchanged = dict(zip(copied, results, strict=True))
        for tensor in readers:
            tensor.uop = tensor.uop.substitute(exchanged)
    for buffer, source in list(_definitions.items()):
        if buffer in written or _reads(source, set(), set(written)):
            _definitions.pop(buffer, None)
            _stale.add(buffer)
