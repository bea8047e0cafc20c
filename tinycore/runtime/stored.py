"""Plans on disk: from the outline of a graph to the kernels of the cache, with nothing scheduled in between.

An entry holds numbers only: sizes, places, and the keys of kernels in the kernel cache. It is found by a digest of
the outline and of everything that decides what a schedule becomes, in a cache that the user alone can write, and
what it says is checked before anything is launched.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

from tinycore.config import config
from tinycore.errors import DataError, TinycoreError
from tinycore.ir import DType, Op, Target, UOp, dtypes
from tinycore.ir.text import print_graph
from tinycore.runtime.bound import Bound, Place, Recall
from tinycore.runtime.cache import DiskCache, open_cache
from tinycore.runtime.compiler import Compiled, compiler_digest, load_kernel
from tinycore.runtime.device import GraphDevice
from tinycore.runtime.devices import get_device
from tinycore.runtime.environment import environment
from tinycore.runtime.joined import lowering_digests, scheduling_digests
from tinycore.schedule.outline import Outline

FORMAT = 1


@functools.cache
def _cache_for(directory: Path | None) -> DiskCache | None:
    return open_cache("plans")


def plan_cache() -> DiskCache | None:
    """Where plans are kept; None while somebody wants to see how they are made, or wants no cache."""
    settings = config()
    if not settings.cache or settings.debug or settings.validate or settings.search:
        return None
    return _cache_for(settings.cache_directory)


def plan_key(found: Outline, home: str, devices: Set[str]) -> str:
    """A hex digest of everything that decides what a graph with buffers on these devices becomes."""
    known = environment()
    parts = [str(FORMAT), *_texts(found), compiler_digest(known.sources), repr(known.versions)]
    for name in (home, *sorted(devices)):
        parts += _identity(get_device(name).target)
    parts += (*scheduling_digests(), *lowering_digests())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=20).hexdigest()


def _identity(target: Target) -> list[str]:
    claims = [getattr(target.capabilities, claim.name) for claim in fields(target.capabilities)]
    texts = [str(sorted(map(str, claim)) if isinstance(claim, frozenset) else claim) for claim in claims]
    return [target.name, target.architecture, target.fingerprint, *texts]


def _texts(parts: Sequence[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, UOp):
            yield print_graph(part)
        elif isinstance(part, tuple):
            yield "("
            yield from _texts(part)
            yield ")"
        else:
            yield part.name if isinstance(part, (Op, DType)) else repr(part)


def pack(bound: Bound) -> bytes | None:
    """What `unpack` reads; None when a kernel has no entry in the cache."""
    codes = [call.compiled for call in bound.remembered] + [code for code, _ in bound.launches]
    numbers = {code.key: number for number, code in enumerate({code.key: code for code in codes}.values())}
    if "" in numbers:
        return None
    content = {
        "device": bound.device.name,
        "target": _identity(bound.device.target),
        "kernels": list(numbers),
        "made": [[dtype.name, shape] for dtype, shape, _ in bound.made],
        "temporaries": bound.temporaries,
        "remembered": [[numbers[call.compiled.key], call.source, call.nbytes] for call in bound.remembered],
        "launches": [[numbers[code.key], places] for code, places in bound.launches],
        "written": bound.written,
        "results": [[result.place, result.shapes] for result in bound.results],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def unpack(content: bytes, inputs: int) -> Bound | None:
    """The plan of an entry, with its kernels loaded; None when the cache has lost one, or the device is another.

    Raises DataError for what `pack` cannot have written.
    """
    try:
        return _Reader(json.loads(content), inputs).bound()
    except (ValueError, LookupError, TypeError, TinycoreError) as error:
        raise DataError(f"a stored plan has another format: {error}") from None


class _Reader:
    """Reads one entry and believes nothing in it."""

    def __init__(self, content: dict[str, Any], inputs: int) -> None:
        self.content, self.inputs = content, inputs
        device = get_device(content["device"])
        if not isinstance(device, GraphDevice):
            raise DataError(f"{device.name} replays no launches")
        self.device: GraphDevice = device
        counts = [len(content[name]) for name in ("made", "temporaries", "remembered")]
        self.readable = inputs + sum(counts)
        """How many places there are."""
        self.nodes = inputs + counts[0]
        """How many of them may be results."""

    def bound(self) -> Bound | None:
        if self.content["target"] != _identity(self.device.target):
            return None
        kernels: list[Compiled] = []
        for key in self.content["kernels"]:
            found = load_kernel(key, self.device)
            if found is None:
                return None
            kernels.append(found)
        made = tuple([self.made(name, _numbers(shape)) for name, shape in self.content["made"]])
        return Bound(
            self.device,
            made,
            _numbers(self.content["temporaries"]),
            tuple(
                [
                    Recall(code.key, self.takes(code, 2), _below(source, self.inputs), _below(size, math.inf))
                    for code, source, size in [(kernels[k], s, n) for k, s, n in self.content["remembered"]]
                ]
            ),
            tuple([self.launch(kernels[number], places) for number, places in self.content["launches"]]),
            tuple([_below(place, self.inputs) for place in self.content["written"]]),
            tuple(
                [
                    Place(_below(place, self.nodes), tuple([_numbers(shape) for shape in shapes]))
                    for place, shapes in self.content["results"]
                ]
            ),
        )

    def made(self, name: str, shape: tuple[int, ...]) -> tuple[DType, tuple[int, ...], int]:
        dtype = dtypes.by_name(name)
        return dtype, shape, math.prod(shape) * dtype.itemsize

    def takes(self, code: Compiled, count: int) -> Compiled:
        if code.buffers != count or code.variables:
            raise DataError(f"{code.name} takes other arguments")
        return code

    def launch(self, code: Compiled, places: Sequence[int]) -> tuple[Compiled, tuple[int, ...]]:
        return self.takes(code, len(places)), tuple([_below(place, self.readable) for place in places])


def _below(number: Any, limit: float) -> int:
    if type(number) is not int or not 0 <= number < limit:
        raise DataError(f"{number!r} is out of range")
    return number


def _numbers(given: Sequence[Any]) -> tuple[int, ...]:
    return tuple([_below(number, math.inf) for number in given])
