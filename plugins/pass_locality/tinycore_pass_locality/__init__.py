"""Schedules for data locality: physical layouts, packed weights, rows that never leave a cache.

Each pass takes a `Placement` (what is stored, where, how it lies in memory) and answers a better one. They only
change something for devices whose values have lanes: those have a cache for every thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tinycore.ir import UOp
from tinycore.schedule import Placement, ScheduleContext
from tinycore.schedule.fuse import choose_stored
from tinycore_pass_locality.kept import choose_kept
from tinycore_pass_locality.layouts import choose_layouts
from tinycore_pass_locality.pieces import by_image, by_steps, split_sums
from tinycore_pass_locality.weights import divide_sums


def share_sums(placement: Placement, context: ScheduleContext) -> Placement:
    """Sums in two steps where that pays. What is stored is chosen anew, so this comes before other choices."""

    def split(node: UOp, changed: UOp) -> UOp | None:
        capabilities = context.capabilities_of(node)
        if capabilities.workgroups or not capabilities.vector_bytes:
            return None
        images = by_image(changed, capabilities)
        return by_steps(changed, capabilities) if images is None else images

    roots = tuple(split_sums(list(placement.roots), split))
    if roots == placement.roots:
        return placement
    return Placement(roots, frozenset(choose_stored(list(roots))))


def keep_rows(placement: Placement, context: ScheduleContext) -> Placement:
    """Stored values whose only user can compute them row by row are kept by its kernel."""
    special = placement.remembered | placement.layouts.keys() | placement.kept.keys()
    kept = choose_kept(placement.roots, placement.stored, special, lane_bytes_by(context))
    kept_now = {**placement.kept, **kept}
    return divide_sums(replace(placement, stored=placement.stored - kept.keys(), kept=kept_now))


def lay_out(placement: Placement, context: ScheduleContext) -> Placement:
    """Packed weights, and layouts of stored values. Values that are kept, and their users, stay as they are."""
    return choose_layouts(placement, lane_bytes_by(context))


def lane_bytes_by(context: ScheduleContext) -> Callable[[UOp], int]:
    """Bytes of a vector of the device that a value lives on; 0 where layouts are to stay as they are."""

    def lane_bytes(node: UOp) -> int:
        capabilities = context.capabilities_of(node)
        return 0 if capabilities.workgroups else capabilities.vector_bytes

    return lane_bytes
