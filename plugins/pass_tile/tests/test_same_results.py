"""Whatever the pass chooses, kernels mean the same: on targets with lanes and with work-groups, and on devices."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernels import (
    CASES,
    GROUPS,
    LANES,
    TARGETS,
    N,
    arrays_for,
    assign,
    kernels_of,
    lowered,
    matmul,
    meaning,
    run,
    sums_for_places,
    tiled,
    x,
)
from tinycore_codegen_llvm.memory import multiple_of
from tinycore_pass_tile import strips

from tinycore.codegen.nest import TRUE
from tinycore.codegen.staging import StageInThread
from tinycore.errors import BackendUnavailable
from tinycore.ir import dims, ops
from tinycore.runtime.device import Signature
from tinycore.runtime.devices import get_device

SIZES = (0, 1, 37, 70)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("name", sorted(CASES))
def test_interpreted(name, target):
    for kernel in kernels_of(CASES[name]()):
        program = lowered(kernel, target)
        check_shape(program, target)
        for size in SIZES if program.variables or "symbolic" in name else (0,):
            arrays = arrays_for(kernel, size)
            np.testing.assert_array_equal(run(program, arrays, size), meaning(kernel, arrays, size))


def check_shape(program, target):
    """What a device can launch."""
    capabilities = target.capabilities
    assert len(program.grid) <= 3
    assert len(program.group) <= 3
    assert int(np.prod(program.group)) <= capabilities.local_size
    shared = sum(
        int(np.prod(node.arg[2])) * node.dtype.itemsize
        for node in program.linear.toposort()
        if node.op.name == "SCRATCH" and node.arg[0] == "local"
    )
    assert shared <= capabilities.shared_bytes


ON_GROUPS = ("transpose", "matmul odd", "long rows", "batched", "symbolic square", "five axes", "scatter")
"""OpenCL compilers take long: chosen cases only."""
ON_DEVICES = [("CPU", name) for name in sorted(CASES)] + [("CL", name) for name in ON_GROUPS]


@pytest.mark.parametrize(("device", "name"), ON_DEVICES)
def test_on_devices(device, name):
    try:
        opened = get_device(device)
    except BackendUnavailable as reason:
        pytest.skip(f"{device}: {reason.what}")
    for kernel in kernels_of(CASES[name]()):
        program = lowered(kernel, opened.target)
        binary = opened.compile(opened.render(program), program.name)
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        executable = opened.load(binary, signature)
        for size in (0, 37) if program.variables else (0,):
            arrays = arrays_for(kernel, size)
            np.testing.assert_array_equal(
                launch(opened, executable, program, arrays, size), meaning(kernel, arrays, size)
            )


def launch_on_small_caches(kernel, threads):
    """(program, arrays, results) on the CPU, tiled for so many threads and for caches that tests can fill."""
    device = get_device("CPU")
    claims = dataclasses.replace(device.target.capabilities, cache_bytes=(1 << 9, 1 << 13), threads=threads)
    program = lowered(kernel, dataclasses.replace(device.target, capabilities=claims))
    signature = Signature(program.name, len(program.parameters), 0, program.group)
    executable = device.load(device.compile(device.render(program), program.name), signature)
    arrays = arrays_for(kernel, 0)
    return program, arrays, launch(device, executable, program, arrays, 0)


def launch(device, executable, program, arrays, size):
    memories = []
    for slot in range(len(arrays)):
        memory = device.allocator.allocate(max(1, arrays[slot].nbytes))
        if arrays[slot].nbytes:
            device.allocator.copy_in(memory, memoryview(arrays[slot].view(np.uint8)))
        memories.append(memory)
    grid = [s if isinstance(s, int) else dims.evaluate(s, {N: size}) for s in program.grid]
    executable.launch(memories, [size] * len(program.variables), grid)
    result = np.empty_like(arrays[0])
    if result.nbytes:
        device.allocator.copy_out(memoryview(result.view(np.uint8)), memories[0])
    device.synchronize()
    for slot, memory in enumerate(memories):
        device.allocator.free(memory, max(1, arrays[slot].nbytes))
    return result


# --- what it chooses ----------------------------------------------------------------------------------------


def only(name):
    (kernel,) = kernels_of(CASES[name]())
    return kernel


def actions(name, target):
    return [str(action) for action in tiled(only(name), target).arg]


def kinds(name, target):
    return {str(r.arg[1]) for r in tiled(only(name), target).toposort() if r.op.name == "RANGE"}


def test_actions_are_deterministic():
    for name in sorted(CASES):
        for kernel in kernels_of(CASES[name]()):
            assert tiled(kernel, LANES) is tiled(kernel, LANES)


def test_matmul_has_lanes_and_a_register_tile():
    assert {"vector", "unroll"} <= kinds("matmul even", LANES)


TRANSPOSES = (
    "transpose",
    "transpose even",
    "transpose prime",
    "transpose of bytes",
    "transpose of few",
    "channels last",
)


@pytest.mark.parametrize("name", TRANSPOSES)
def test_transposes_access_rows(name):
    program = lowered(only(name), LANES)
    accesses = [node for node in program.linear.src if node.op in (ops.LOAD, ops.STORE)]
    assert accesses
    assert all(node.src[1].shape == () for node in accesses), "an access with an address a lane"
    assert any(node.op is ops.SHUFFLE for node in program.linear.src)


LONG_ROWS = ("transpose of long rows", "transpose of a padded image", "transpose of long batches")


@pytest.mark.parametrize("name", LONG_ROWS)
def test_rows_that_begin_inside_lines_are_put_together_first(name):
    assert any("at multiples of" in action for action in actions(name, LANES))
    program = lowered(only(name), LANES)
    assert any(node.op is ops.SCRATCH for node in program.linear.toposort())
    written = [node for node in program.linear.src if node.op is ops.STORE and node.src[0].op is ops.PARAM]
    whole = [node for node in written if node.src[3].is_const and node.src[2].shape]
    assert whole
    assert all(multiple_of(node.src[1]) % node.src[2].shape[0] == 0 for node in whole)


def test_rows_of_whole_lines_need_no_memory_of_the_thread():
    assert not any("at multiples of" in action for action in actions("transpose even", LANES))


def test_columns_are_summed_row_by_row():
    for name in ("column sums", "matmul row", "symbolic columns"):
        assert any("carry" in action for action in actions(name, LANES))


@pytest.mark.parametrize("second", [1 << 10, 1 << 12, 1 << 16])
def test_strips_of_any_size(second, monkeypatch):
    """Strips that exceed a cache have fewer channels or columns, and mean the same."""
    monkeypatch.setattr(strips, "LEAST_CACHE", second)
    able = dataclasses.replace(LANES.capabilities, cache_bytes=(1 << 9, second))
    target = dataclasses.replace(LANES, capabilities=able)
    chosen = {}
    for name in ("pixels odd", "pixels of many channels", "long sequence"):
        (kernel,) = kernels_of(CASES[name]())
        chosen[name] = [str(action) for action in tiled(kernel, target).arg]
        arrays = arrays_for(kernel, 0)
        found = run(lowered(kernel, target), arrays, 0)
        np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))
    carried = any("carry" in action for action in chosen["pixels of many channels"])
    assert carried == (second < 1 << 16)
    staged = [any("memory of the thread" in action for action in actions) for actions in chosen.values()]
    assert all(staged) or second < 1 << 16


def test_large_results_are_streamed():
    small = dataclasses.replace(
        LANES, capabilities=dataclasses.replace(LANES.capabilities, cache_bytes=(1 << 10, 1 << 15))
    )
    assert "stream results" in actions("long elementwise", small)
    assert "stream results" not in actions("elementwise", small)
    assert "stream results" not in actions("long elementwise", GROUPS)
    (kernel,) = kernels_of(assign(x(40_000), x(40_000), x(40_000) * 3))
    assert "stream results" not in [str(action) for action in tiled(kernel, small).arg]


def test_large_kernels_use_the_grid_and_small_ones_do_not():
    assert "global" in kinds("long elementwise", LANES)
    assert "global" not in kinds("elementwise", LANES)


def test_contractions_are_staged_and_long_sums_shared():
    for name in ("matmul odd", "staged convolution"):
        assert sum("stage" in action for action in actions(name, GROUPS)) == 2
    assert any("across the work-group" in action for action in actions("long rows", GROUPS))
    assert lowered(only("long rows"), GROUPS).group


def test_neighbouring_axes_are_merged():
    assert any("merge" in action for action in actions("elementwise", LANES))


def test_reshaped_axes_are_walked_one_by_one():
    for name in ("heads joined", "reshape of a permuted"):
        tree = tiled(only(name), LANES).toposort()
        assert not any(node.op in (ops.FLOORDIV, ops.FLOORMOD) for node in tree), name


def test_reductions_of_rows_stand_outside_of_the_loop_over_the_row():
    """Merged ranges keep their place: the sum of a row is not computed once a tile."""
    opened, depth, reduced = 0, [], []
    for node in lowered(only("batches of rows"), LANES).linear.src:
        if node.op is ops.RANGE and node.arg[1] != "global":
            opened += 1
        elif node.op is ops.END:
            opened -= 1
        elif node.op is ops.STORE:
            depth.append(opened)
        elif node.op is ops.LANE_REDUCE:
            reduced.append(opened)
    assert max(depth) > max(reduced)


def test_ordered_ranges_are_left_alone():
    (kernel,) = kernels_of(CASES["scatter"]())
    for target in TARGETS:
        found = [
            r for r in tiled(kernel, target).toposort() if r.op.name == "RANGE" and r.arg[1] == "ordered"
        ]
        assert len(found) == 1


def test_running_sums_are_kept_in_registers():
    for name in ("scan of rows", "scan of many rows", "scan of columns"):
        program = lowered(only(name), LANES)
        read = {node.src[0].arg[0] for node in program.linear.toposort() if node.op is ops.LOAD}
        assert read == {1}, "what the step before stored is read again"


def test_rows_of_a_running_sum_run_at_once():
    assert "global" in kinds("scan of many rows", LANES)
    assert "global" not in kinds("scatter", LANES)


def test_compiling_takes_no_longer_for_larger_tensors():
    from kernels import x

    (kernel,) = kernels_of(x(1 << 50) + 1)
    assert "global" in {str(r.arg[1]) for r in tiled(kernel, LANES).toposort() if r.op.name == "RANGE"}


STAGED = (
    "pixels",
    "pixels odd",
    "pixels square",
    "pixels apart",
    "pixels of inner windows",
    "sequence",
    "symbolic pixels",
    "places",
    "places odd",
    "places in planes",
    "places apart",
    "places of large windows",
    "places of inner windows",
    "places of many channels",
)


@pytest.mark.parametrize("name", [name for name in sorted(CASES) if name.startswith("planes")])
def test_planes_are_staged_and_lanes_are_loaded_as_neighbours(name):
    """No address a lane, whatever the stride, and shuffles where there is one."""
    (kernel,) = kernels_of(CASES[name]())
    actions = tiled(kernel, LANES).arg
    assert any(isinstance(action, StageInThread) for action in actions)
    program = lowered(kernel, LANES).linear.src
    assert all(node.src[1].shape == () for node in program if node.op is ops.LOAD)
    assert any(node.op is ops.SHUFFLE for node in program) == ("apart" in name or "inner" in name)


@pytest.mark.parametrize("name", STAGED)
def test_windows_are_staged_without_guards_in_the_inner_loop(name):
    (kernel,) = kernels_of(CASES[name]())
    actions = tiled(kernel, LANES).arg
    assert any(isinstance(action, StageInThread) for action in actions)
    reductions = [node for node in tiled(kernel, LANES).toposort() if node.op is ops.REDUCE]
    for reduction in reductions:
        cut = {node: node.src[0] for node in reduction.toposort() if node.op is ops.AFTER}
        below = reduction.src[0].substitute(cut).toposort()
        assert all(node.src[2] is TRUE for node in below if node.op is ops.LOAD)


def test_channels_are_the_rows_of_a_tile_for_every_place():
    """24 accumulators, each summed up over all pixels of a piece; with few channels the places are the tile."""

    def unrolled(*shape):
        kernel = tiled(kernels_of(sums_for_places(*shape))[0], LANES)
        (reduction,) = {node for node in kernel.toposort() if node.op is ops.REDUCE}
        assert {str(r.arg[1]) for r in reduction.src[1:]} == {"reduce"}
        return sorted(int(r.src[0].arg[0]) for r in reduction.ranges if r.arg[1] == "unroll")

    assert unrolled(16, 1, 4, 5, 12, 32, 3) == [2, 12]
    assert unrolled(16, 1, 4, 5, 3, 32, 3) == [2, 3, 3]


def test_a_long_reduction_decides_where_lanes_go_however_much_follows_it():
    """Ten vectors are added to a matrix times a vector: what counts is the matrix."""
    result = matmul(x(48, 512), x(512, 1, identity=2))
    for identity in range(3, 13):
        result = result + x(48, 1, identity=identity)
    (kernel,) = kernels_of(result)
    (reduction,) = {node for node in tiled(kernel, LANES).toposort() if node.op is ops.REDUCE}
    assert any(each.op is ops.RANGE and each.arg[1] == "vector" for each in reduction.src[1:])
