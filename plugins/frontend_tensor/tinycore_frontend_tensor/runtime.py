"""The few calls into `tinycore.runtime`, in one place."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np

from tinycore.interpret import interpret
from tinycore.ir import DType, Shape, UOp, dims, ops

_ids = itertools.count(1)
_store: weakref.WeakKeyDictionary[UOp, np.ndarray] = weakref.WeakKeyDictionary()


def realize(roots: list[UOp], bindings: dict[UOp, int]) -> list[UOp]:
    def base(n):
        while n.op is ops.ASSIGN:
            n = n.src[0]
        return n
    values = [np.array(a) for a in interpret(roots, _store, bindings)]
    out = []
    for r, v in zip(roots, values):
        if r.op is ops.ASSIGN:
            b = base(r)
            _store[b] = v
            out.append(b)
        else:
            b = UOp(ops.BUFFER, r.dtype, (), (next(_ids), r.shape, "SIM"))
            _store[b] = v
            out.append(b)
    return out


def empty(dtype: DType, shape: Shape, device: str) -> UOp:
    b = UOp(ops.BUFFER, dtype, (), (next(_ids), shape, device))
    _store[b] = np.zeros(tuple(dims.upper(d) for d in shape), dtype.numpy)
    return b


def from_host(array: Any, dtype: DType, shape: Shape, device: str) -> UOp:
    b = UOp(ops.BUFFER, dtype, (), (next(_ids), shape, device))
    _store[b] = np.array(array)
    return b


def to_host(node: UOp, bindings) -> np.ndarray:
    return np.array(_store[node])
