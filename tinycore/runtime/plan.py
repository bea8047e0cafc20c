"""Plans: what a graph became, found again by its outline, and run again without scheduling anything.

A plan is used for every graph of its outline, with the buffers of the moment. Where all of it is kernels of one
device that replays launches by itself, with sizes that are known, a plan becomes `Bound`: running it is to allocate
the results, to write all addresses in one call and to replay in another. Bound plans are kept on disk, too.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Hashable, Sequence

from tinycore.config import config
from tinycore.errors import DataError
from tinycore.ir import UOp
from tinycore.runtime.bound import Bound, bind
from tinycore.runtime.cache import CacheWarning
from tinycore.runtime.compiler import tensor_observers
from tinycore.runtime.device import GraphDevice
from tinycore.runtime.devices import capabilities_of, get_device
from tinycore.runtime.joined import joining_key, schedule_doors
from tinycore.runtime.stored import pack, plan_cache, plan_key, unpack
from tinycore.schedule import Schedule, make_schedule, number_buffers, outline
from tinycore.schedule.outline import Outline

_KEPT = 512
_plans: dict[Hashable, Plan] = {}
_lock = threading.Lock()


def plan_of(roots: Sequence[UOp], home: str, fixed: bool = True) -> tuple[Plan, list[UOp]]:
    """(plan, inputs) of a graph; values made of constants only are stored on the device `home`.

    Graphs with sizes that are not `fixed` are not looked for on disk. Raises BackendUnavailable.
    """
    found, inputs = outline(roots)
    key = (found, home, joining_key(), config().validate)
    plan = _plans.get(key)
    if plan is None:
        plan = Plan(home, len(inputs))
        if fixed:
            plan.find(found, inputs)
        with _lock:
            _plans[key] = plan
            while len(_plans) > _KEPT:
                del _plans[next(iter(_plans))]
    return plan, inputs


def forget_plans() -> None:
    """Drop all plans, and the code that they hold."""
    with _lock:
        _plans.clear()


class Plan:
    """What a graph became; made when it is first asked for.

    Attributes
    ----------
    home: the device of values made of constants only.
    inputs: how many buffers are given.
    """

    __slots__ = ("_bound", "_key", "_schedule", "home", "inputs", "uses")

    def __init__(self, home: str, inputs: int) -> None:
        self.home, self.inputs, self.uses = home, inputs, 0
        self._schedule: Schedule | None = None
        self._bound: Bound | None = None
        self._key: str | None = None

    def schedule(self, roots: Sequence[UOp]) -> Schedule:
        """The steps, over numbered buffers; `roots` have the outline of the plan."""
        if self._schedule is None:
            numbered, _ = number_buffers(list(roots))
            self._schedule = make_schedule(
                numbered, self.home, schedule_doors(), tensor_observers(), capabilities=capabilities_of
            )
        return self._schedule

    def bound(self) -> Bound | None:
        """The plan as one call of its device, where it is known to be one."""
        bound = self._bound
        if bound is not None and get_device(bound.device.name) is not bound.device:
            self._bound, self.uses, bound = None, 0, None  # the device was opened anew
        return bound

    def find(self, found: Outline, inputs: Sequence[UOp]) -> None:
        """Look for the plan of an outline on disk."""
        cache = plan_cache()
        if cache is None or not isinstance(get_device(self.home), GraphDevice):
            return
        self._key = plan_key(found, self.home, {node.arg[2] for node in inputs})
        content = cache.get(self._key)
        if content is not None:
            try:
                self._bound = unpack(content, self.inputs)
            except DataError as error:
                _warn_of_entry(error.what)

    def keep(self) -> None:
        """After the schedule has run step by step: bind it, for the next time and for other processes."""
        self.uses += 1
        cache = plan_cache() if self._key is not None and self.uses == 1 else None
        if self._bound is not None or self._schedule is None or (cache is None and self.uses != 2):
            return
        self._bound = bind(self._schedule, self.inputs)
        content = pack(self._bound) if cache is not None and self._bound is not None else None
        if cache is not None and self._key is not None and content is not None:
            cache.put(self._key, content)


@functools.cache
def _warn_of_entry(problem: str) -> None:
    warnings.warn(f"an entry of the plan cache was of no use: {problem}", CacheWarning, stacklevel=2)
