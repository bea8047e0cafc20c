"""Lowering small kernels step by step, and running them at every level."""

from __future__ import annotations

import math

import numpy as np
from graphs import evaluate, schedule_of

from tinycore.codegen.compile import assemble
from tinycore.codegen.linearize import linearize
from tinycore.codegen.pipeline import AFTER_TILE, BEFORE_TILE, LOWERING, Context, index_dtype
from tinycore.codegen.tiling import apply
from tinycore.interpret import interpret_kernel, interpret_program
from tinycore.ir import Capabilities, Target, dims, dtypes, ops
from tinycore.ir.verify import verify
from tinycore.runtime.device import Signature
from tinycore.runtime.devices import get_device

LANES = Target(
    "LANES",
    capabilities=Capabilities(
        ops=frozenset(op for op in ops if op.elementwise), vector_bytes=32, threads=4, index_bits=(32, 64)
    ),
)
GROUPS = Target(
    "GROUPS",
    capabilities=Capabilities(
        ops=frozenset(op for op in ops if op.elementwise),
        workgroups=True,
        local_size=256,
        shared_bytes=1 << 15,
        index_bits=(32, 64),
    ),
)


def kernel_of(*roots):
    """The canonical kernel of roots that need exactly one."""
    (step,) = schedule_of(*roots).steps
    return step.kernel


def indexed(kernel):
    """The kernel over ranges, before tiling."""
    for step in BEFORE_TILE:
        kernel = step.run(kernel, Context(LANES))
    verify(kernel, "kernel")
    return kernel


def program_of(kernel, tiled, target):
    """The program of a tiled kernel, verified at both levels."""
    verify(tiled, "kernel")
    context = Context(target)
    for step in (*AFTER_TILE, *LOWERING):
        tiled = step.run(tiled, context)
        verify(tiled, "kernel")
    linear = linearize(tiled, target, index_dtype(tiled, target))
    verify(linear, "program")
    return assemble(kernel, linear)


def arrays_for(kernel, bindings=None, seed=0):
    """Random elements for every slot; what a kernel does not write can be recognised."""
    random = np.random.default_rng(seed)
    found = {}
    for node in kernel.toposort():
        if node.op is ops.PARAM:
            slot, shape = node.arg
            size = math.prod(evaluate(shape, bindings or {}))
            if node.dtype.is_float:
                found[slot] = random.standard_normal(size).astype(node.dtype.numpy)
            elif node.dtype is dtypes.bool_:
                found[slot] = random.random(size) < 0.5
            else:
                found[slot] = random.integers(0, 7, size).astype(node.dtype.numpy)
    return found


def copies(arrays):
    return {slot: array.copy() for slot, array in arrays.items()}


def expected(kernel, arrays, bindings=None):
    """What the canonical kernel means."""
    result = copies(arrays)
    interpret_kernel(kernel, result, bindings or {})
    return result[0]


def run_kernel(kernel, arrays, bindings=None):
    result = copies(arrays)
    interpret_kernel(kernel, result, bindings or {})
    return result[0]


def run_program(program, arrays, bindings=None):
    result = copies(arrays)
    grid = [size if isinstance(size, int) else dims.evaluate(size, bindings or {}) for size in program.grid]
    interpret_program(program.linear, result, bindings or {}, grid, program.group)
    return result[0]


def run_on(name, program, arrays, bindings=None):
    """The program compiled and launched on a device."""
    bindings = bindings or {}
    device = get_device(name)
    binary = device.compile(device.render(program), program.name)
    executable = device.load(
        binary, Signature(program.name, len(program.parameters), len(program.variables), program.group)
    )
    memories = []
    for slot in range(len(program.parameters)):
        memory = device.allocator.allocate(arrays[slot].nbytes)
        if arrays[slot].nbytes:
            device.allocator.copy_in(memory, memoryview(np.ascontiguousarray(arrays[slot]).view(np.uint8)))
        memories.append(memory)
    grid = [size if isinstance(size, int) else dims.evaluate(size, bindings) for size in program.grid]
    executable.launch(memories, [bindings[variable] for variable in program.variables], grid)
    result = np.empty_like(arrays[0])
    if result.nbytes:
        device.allocator.copy_out(memoryview(result.view(np.uint8)), memories[0])
    device.synchronize()
    for memory, array in zip(memories, [arrays[slot] for slot in range(len(memories))], strict=True):
        device.allocator.free(memory, array.nbytes)
    return result


def equal(found, wanted, tolerance=2e-5):
    if wanted.dtype.kind in "biu":
        np.testing.assert_array_equal(found, wanted)
    else:
        scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


def check(root, *actions, bindings=None, device="CPU"):
    """The kernel means the same at every level; answers the program."""
    kernel = kernel_of(root)
    tiled = apply(indexed(kernel), actions)
    arrays = arrays_for(kernel, bindings)
    wanted = expected(kernel, arrays, bindings)
    program = program_of(kernel, tiled, LANES)
    equal(run_kernel(tiled, arrays, bindings), wanted)
    equal(run_program(program, arrays, bindings), wanted)
    if device:
        equal(run_on(device, program_of(kernel, tiled, get_device(device).target), arrays, bindings), wanted)
    return program
