"""What the tests of schedule, codegen, runtime and the whole share: small graphs, and running them.

The conftest of each of these folders puts this one on `sys.path`.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

import numpy as np
import pytest

from tinycore.errors import BackendUnavailable
from tinycore.interpret import interpret
from tinycore.ir import UOp, dims, dtypes, ops
from tinycore.runtime import compiler
from tinycore.runtime.devices import get_device
from tinycore.runtime.environment import environment, override_environment
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host
from tinycore.schedule import CopyStep, KernelStep, make_schedule, number_buffers

REFERENCE = "INTERPRETER"
DEVICES = ("CPU", "CL", REFERENCE)
YES = UOp.const(dtypes.bool_, True)


@functools.cache
def reason_without(name):
    """Why a device cannot be used here, or None."""
    try:
        get_device(name)
    except BackendUnavailable as error:
        return f"{name}: {error.what}"
    return None


def need(*names):
    """Skips a test on machines without one of these devices."""
    for name in names:
        if reason_without(name):
            pytest.skip(reason_without(name))


# --- graphs -------------------------------------------------------------------------------------------------


def reshape(x, *shape):
    return x if x.shape == shape else UOp(ops.RESHAPE, x.dtype, (x,), tuple(shape))


def permute(x, *axes):
    return UOp(ops.PERMUTE, x.dtype, (x,), tuple(axes))


def expand(x, *shape):
    """To this shape, with new leading axes where it has more of them."""
    x = reshape(x, *(1,) * (len(shape) - len(x.shape)), *x.shape)
    return x if x.shape == shape else UOp(ops.EXPAND, x.dtype, (x,), tuple(shape))


def pad(x, *padding):
    return UOp(ops.PAD, x.dtype, (x,), tuple(padding))


def shrink(x, *limits):
    return UOp(ops.SHRINK, x.dtype, (x,), tuple(limits))


def flip(x, *axes):
    return UOp(ops.FLIP, x.dtype, (x,), tuple(axes))


def contiguous(x):
    return UOp(ops.CONTIGUOUS, x.dtype, (x,))


def copy(x, device):
    return UOp(ops.COPY, x.dtype, (x,), device)


def reduce(x, op, *axes):
    """Keeps the reduced axes with size 1."""
    return UOp(ops.REDUCE, x.dtype, (x,), (op, tuple(axes)))


def total(x, *axes):
    return reduce(x, ops.ADD, *axes)


def assign(base, value, view=None):
    view = base if view is None else view
    return UOp(ops.ASSIGN, base.dtype, (base, view, value))


def scatter(base, index, updates, axis=0, op=None):
    return UOp(ops.SCATTER, base.dtype, (base, index, updates), (op, axis))


def gather(x, index, axis=0):
    return UOp(ops.GATHER, x.dtype, (x, index), axis)


def scan(x, axis, op=ops.ADD):
    return UOp(ops.SCAN, x.dtype, (x,), (op, axis))


def const(dtype, value, *shape):
    return UOp.const(dtype, value, tuple(shape))


def relu(x):
    return x.alu(ops.MAX, x.const_like(0))


def matmul(a, b):
    """Over the last two axes; leading axes are equal."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    full = (*batch, m, k, n)
    x = expand(reshape(a, *batch, m, k, 1), *full)
    y = expand(reshape(b, *batch, 1, k, n), *full)
    return reshape(total(x * y, len(batch) + 1), *batch, m, n)


def softmax(x, axis=-1):
    axis %= len(x.shape)
    shifted = (x - expand(reduce(x, ops.MAX, axis), *x.shape)).alu(ops.EXP)
    return shifted / expand(total(shifted, axis), *x.shape)


def layer_norm(x, count):
    """Over the last axis, whose size as a number is `count`."""
    axis = len(x.shape) - 1
    mean = total(x, axis) * (1.0 / count)
    centred = x - expand(mean, *x.shape)
    variance = total(centred * centred, axis) * (1.0 / count)
    return centred / expand((variance + 1e-5).alu(ops.SQRT), *x.shape)


def node(shape, dtype=dtypes.float32, identity=1, device="X"):
    """A BUFFER without memory, for schedules that are looked at and not run."""
    return UOp(ops.BUFFER, dtype, (), (identity, tuple(shape), device))


# --- schedules ----------------------------------------------------------------------------------------------


def schedule_of(*roots, device="X"):
    numbered, _ = number_buffers(list(roots))
    return make_schedule(numbered, device)


def kernels(*roots):
    """How many kernels compute the roots."""
    return sum(isinstance(step, KernelStep) for step in schedule_of(*roots).steps)


def touched(step):
    """The buffers of a step, the written one first."""
    return (step.target, step.source) if isinstance(step, CopyStep) else step.buffers


# --- running ------------------------------------------------------------------------------------------------


def data(shape, dtype=np.float32, seed=0):
    """Random elements: small integers, or numbers around zero."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    if dtype.kind in "iu":
        return random.integers(0 if dtype.kind == "u" else -9, 10, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def run(build, arrays, device, bindings=None, shapes=None):
    """The arrays that ``build(*buffers) -> list of roots`` computes on a device."""
    shapes = shapes or [None] * len(arrays)
    nodes = [
        from_host(array, device, shape=shape, bindings=bindings)
        for array, shape in zip(arrays, shapes, strict=True)
    ]
    results = realize(build(*nodes), bindings, device)
    return [to_host(result, bindings) for result in results]


def meaning(build, arrays, bindings=None, shapes=None):
    """The same by the interpreter of tensor graphs alone: no schedule, no kernels."""
    shapes = shapes or [array.shape for array in arrays]
    nodes = [
        node(shape, dtypes.of_numpy(array.dtype), 1000 + k)
        for k, (array, shape) in enumerate(zip(arrays, shapes, strict=True))
    ]
    return interpret(build(*nodes), dict(zip(nodes, arrays, strict=True)), bindings or {})


def same(found, expected, tolerance=2e-5):
    """Integers bit for bit, floats within a tolerance relative to the largest element."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype.kind in "biu":
            np.testing.assert_array_equal(one, other)
        elif one.size:
            scale = float(np.nanmax(np.abs(other.astype(np.float64)), initial=0.0)) or 1.0
            bound = tolerance * (scale if np.isfinite(scale) else 1.0)
            np.testing.assert_allclose(
                one.astype(np.float64), other.astype(np.float64), rtol=tolerance, atol=bound
            )


def check(build, arrays, device=REFERENCE, bindings=None, shapes=None, tolerance=2e-5):
    """The device computes what the graph means."""
    need(device)
    same(run(build, arrays, device, bindings, shapes), meaning(build, arrays, bindings, shapes), tolerance)


@contextlib.contextmanager
def compilations():
    """Collects the names of the programs that are compiled in a block."""
    names = []

    def hook(kernel, program, source):
        names.append(program.name)

    compiler.compile_hooks.append(hook)
    try:
        yield names
    finally:
        compiler.compile_hooks.remove(hook)


@contextlib.contextmanager
def without_tiling():
    """Every pass of stage `tile` is left out."""
    passes = {stage: () if stage == "tile" else several for stage, several in environment().passes.items()}
    with override_environment(replace(environment(), passes=passes)):
        yield


def evaluate(shape, bindings):
    return tuple(size if isinstance(size, int) else dims.evaluate(size, bindings) for size in shape)
