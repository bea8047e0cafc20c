"""Modes of a block of code: whether gradients are recorded, whether layers behave as in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_gradients: ContextVar[bool] = ContextVar("tinycore_gradients", default=True)
_training: ContextVar[bool] = ContextVar("tinycore_training", default=False)


def gradients_recorded() -> bool:
    """Whether results of operations on tensors that require gradients require them too."""
    return _gradients.get()


def is_training() -> bool:
    """Whether dropout drops and batch normalisation uses (and updates) the statistics of the batch."""
    return _training.get()


@contextlib.contextmanager
def record_gradients(mode: bool) -> Iterator[None]:
    """Switch the recording of gradients on or off for a block of code (or a decorated function)."""
    token = _gradients.set(mode)
    try:
        yield
    finally:
        _gradients.reset(token)


@contextlib.contextmanager
def training(mode: bool = True) -> Iterator[None]:
    """Switch training behaviour on or off for a block of code (or a decorated function).

    >>> with training():
    ...     is_training()
    True
    """
    token = _training.set(mode)
    try:
        yield
    finally:
        _training.reset(token)
