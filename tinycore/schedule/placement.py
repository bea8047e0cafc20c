"""Where values are: what is stored and how it lies in memory, what the kernel of its user keeps to itself.

Fusion makes the first `Placement` of a graph; passes of the stage `schedule` answer better ones. Any placement
gives right results, so that all of them are optional.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tinycore.errors import CompileError, DeviceError
from tinycore.ir import Capabilities, UOp, dtypes, ops


@dataclass(frozen=True, slots=True)
class Layout:
    """How a stored value lies in memory.

    Attributes
    ----------
    order: the axes of the value in the order of memory; None when they lie as they are.
    split: (axis, size): the kernel that stores it walks this axis in blocks.
    """

    order: tuple[int, ...] | None = None
    split: tuple[int, int] | None = None


_AS_THEY_ARE = frozenset({ops.ASSIGN, ops.COPY, ops.SCAN, ops.SCATTER})
"""Ops whose results lie as they are."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor graph, and where its values are.

    Attributes
    ----------
    roots: the values that were asked for.
    stored: values with a buffer of their own: each becomes a kernel. All others are computed where they are used.
    kept: values that wait inside the kernel of their only user, each with that user (stored or kept itself).
    layouts: of the stored values that do not lie as they are.
    remembered: stored values that are worth keeping while the one input that they are computed from is unchanged.
    """

    roots: tuple[UOp, ...]
    stored: frozenset[UOp]
    kept: Mapping[UOp, UOp] = field(default_factory=lambda: MappingProxyType({}))
    layouts: Mapping[UOp, Layout] = field(default_factory=lambda: MappingProxyType({}))
    remembered: frozenset[UOp] = frozenset()

    @property
    def sink(self) -> UOp:
        """The graph as one node."""
        return UOp(ops.SINK, dtypes.void, self.roots, None)

    def check(self, name: str, before: Placement) -> None:
        """That it places the same values as another one. Raises CompileError, naming the pass that made it."""

        if self is before:
            return

        def outline(roots: tuple[UOp, ...]) -> list[object]:
            return [(root.dtype, root.shape) for root in roots]

        problem = None
        if outline(self.roots) != outline(before.roots):
            problem = "its roots have other dtypes or shapes"
        elif self.stored & self.kept.keys():
            problem = "values are both stored and kept"
        elif not self.remembered | self.layouts.keys() <= self.stored:
            problem = "what has a layout or is remembered is not stored"
        elif any(node.op in _AS_THEY_ARE for node in self.layouts):
            problem = "what is stored in place, copied or computed in order has a layout"
        elif not frozenset(self.kept.values()) <= self.stored | self.kept.keys():
            problem = "a value is kept by one that has no kernel"
        elif any(
            layout.order is not None and sorted(layout.order) != list(range(len(node.shape)))
            for node, layout in self.layouts.items()
        ):
            problem = "the order of a layout is no permutation of the axes"
        if problem:
            raise CompileError(f"the pass {name!r} answered no placement of these values: {problem}")


@dataclass(frozen=True, slots=True)
class ScheduleContext:
    """What passes of the stages `tensor` and `schedule` may ask for.

    Attributes
    ----------
    device: where values made of constants only will be stored.
    capabilities: what a device can do, by its name.
    """

    device: str
    capabilities: Callable[[str], Capabilities]
    _devices: dict[UOp, str | None] = field(default_factory=dict, repr=False, compare=False)

    def capabilities_of(self, node: UOp) -> Capabilities:
        """Of the device that a value lives on. Raises DeviceError where its operands live on several."""
        return self.capabilities(device_of(node, self._devices) or self.device)


def device_of(node: UOp, memo: dict[UOp, str | None]) -> str | None:
    """The device that a value lives on; None when it is made of constants only. Raises DeviceError."""
    stack = [node]
    while stack:  # not a toposort: what is known already is not walked again
        current = stack[-1]
        missing = (
            [operand for operand in current.src if operand not in memo] if current.op is not ops.COPY else []
        )
        if current in memo or missing:
            stack.extend(missing)
            if not missing:
                stack.pop()
            continue
        stack.pop()
        if current.op is ops.BUFFER:
            memo[current] = current.arg[2]
        elif current.op is ops.COPY:
            memo[current] = current.arg
        else:
            found = {memo[operand] for operand in current.src} - {None}
            if len(found) > 1:
                names = " and ".join(sorted(str(name) for name in found))
                raise DeviceError(
                    f"{current.op.name} has operands on {names}",
                    hint=f"move one of them, e.g. with .to({sorted(map(str, found))[0]!r})",
                )
            memo[current] = found.pop() if found else None
    return memo[node]
