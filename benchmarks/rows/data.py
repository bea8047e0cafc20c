"""Random arguments."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]


def normal(*shapes: Shape, dtype: str = "float32") -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Arrays of normal numbers."""
    return lambda generator: tuple([one(generator, shape, dtype) for shape in shapes])


def one(generator: np.random.Generator, shape: Shape, dtype: str = "float32") -> np.ndarray:
    """One array; small integers for integer dtypes."""
    if dtype == "int8":
        return generator.integers(-128, 128, shape, np.int8)
    if dtype == "float64":
        return generator.standard_normal(shape)
    values = generator.standard_normal(shape, np.float32)
    if dtype == "bfloat16":
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16)
    return values.astype(dtype)


def integers(generator: np.random.Generator, below: int, shape: Shape, dtype: str = "int64") -> np.ndarray:
    """One array of integers in 0..below-1."""
    return generator.integers(0, below, shape, np.dtype(dtype))


def nbytes(*shapes: Shape, itemsize: int = 4) -> float:
    """Bytes of arrays of these shapes together."""
    return float(sum(math.prod(shape) for shape in shapes) * itemsize)
