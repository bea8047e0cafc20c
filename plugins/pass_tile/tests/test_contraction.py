"""Products whose second operand is copied: every way in which the copy and its blocks can come out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tinycore_pass_tile.blocks as blocks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import LANES, arrays_for, kernels_of, lowered, matmul, meaning, permute, run, tiled, x
from test_same_results import launch, launch_on_small_caches

from tinycore.interpret import interpret_kernel
from tinycore.ir import Dot, UOp, dtypes, ops
from tinycore.runtime.device import Signature
from tinycore.runtime.devices import get_device


def linear(rows, steps, columns, dtype=dtypes.int32):
    """A layer with weights (out, in)."""
    return matmul(x(rows, steps, dtype=dtype), permute(x(columns, steps, identity=2, dtype=dtype), 1, 0))


def product(rows, steps, columns, dtype=dtypes.int32):
    return matmul(x(rows, steps, dtype=dtype), x(steps, columns, identity=2, dtype=dtype))


CASES = {
    "even": lambda: product(48, 64, 64),
    "odd": lambda: product(53, 41, 75),
    "one column more than a tile": lambda: product(48, 80, 33),
    "few columns": lambda: product(100, 130, 17),
    "many rows": lambda: product(203, 67, 40),
    "blocks of steps": lambda: product(49, 96, 70),
    "prime steps": lambda: product(49, 97, 70),
    "bytes": lambda: product(50, 200, 70, dtypes.int8),
    "wide": lambda: product(50, 70, 40, dtypes.int64),
    "linear": lambda: linear(64, 32, 32),
    "linear odd": lambda: linear(61, 37, 43),
    "linear wide": lambda: linear(50, 33, 41, dtypes.int64),
    "fewer columns than lanes": lambda: product(53, 41, 10),
    "fewer columns of weights": lambda: linear(53, 41, 13),
    "very few columns": lambda: product(53, 70, 3),
    "very few columns, odd": lambda: product(33, 129, 7),
    "very few columns, a batch": lambda: matmul(x(3, 49, 64), x(3, 64, 2, identity=2)),
    "very few columns, wide": lambda: product(50, 70, 3, dtypes.int64),
    "few rows": lambda: product(17, 90, 75),
    "few rows in blocks": lambda: product(14, 601, 40),
    "linear of few rows": lambda: linear(19, 45, 50),
    "linear in blocks": lambda: linear(50, 96, 50),
    "and more": lambda: product(51, 70, 45).alu(ops.MAX, UOp.const(dtypes.int32, 900, (51, 45))) * 2,
    "batched": lambda: matmul(x(3, 49, 40), x(3, 40, 70, identity=2)),
    "transposed left": lambda: matmul(permute(x(70, 50), 1, 0), x(70, 40, identity=2)),
    "with itself": lambda: matmul(x(50, 50), permute(x(50, 50), 1, 0)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a size that tests have room for."""
    monkeypatch.setattr(blocks, "MOST_STEPS", 32)


@pytest.mark.parametrize("name", sorted(CASES))
def test_interpreted(name):
    (kernel,) = kernels_of(CASES[name]())
    assert any("stage" in str(action) for action in tiled(kernel, LANES).arg)
    arrays = arrays_for(kernel, 0)
    np.testing.assert_array_equal(run(lowered(kernel, LANES), arrays, 0), meaning(kernel, arrays, 0))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(CASES))
def test_on_a_device(name, threads):
    (kernel,) = kernels_of(CASES[name]())
    _, arrays, found = launch_on_small_caches(kernel, threads)
    np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


DOTS = dataclasses.replace(
    LANES,
    capabilities=dataclasses.replace(
        LANES.capabilities,
        dots=(
            Dot(dtypes.float32, dtypes.bfloat16, dtypes.bfloat16, 2),
            Dot(dtypes.int32, dtypes.uint8, dtypes.int8, 4),
        ),
    ),
)


def summed(left, right, dtype):
    """A product whose factors are cast before they are multiplied."""
    return matmul(left.cast(dtype), right.cast(dtype))


def narrow(rows, steps, columns, dtypes_, into, turned=False, turned_left=False):
    def matrix(identity, height, width, dtype, turned):
        if turned:
            return permute(x(width, height, identity=identity, dtype=dtype), 1, 0)
        return x(height, width, identity=identity, dtype=dtype)

    left = matrix(1, rows, steps, dtypes_[0], turned_left)
    return summed(left, matrix(2, steps, columns, dtypes_[1], turned), into)


BYTES, HALVES = (dtypes.int8, dtypes.int8), (dtypes.bfloat16, dtypes.bfloat16)
GROUPED = {
    "bytes": lambda: narrow(48, 64, 64, BYTES, dtypes.int32),
    "odd bytes": lambda: narrow(53, 43, 37, BYTES, dtypes.int32),
    "bytes in blocks": lambda: narrow(50, 512, 40, BYTES, dtypes.int32),
    "weights of bytes": lambda: narrow(49, 66, 50, BYTES, dtypes.int32, turned=True),
    "unsigned and signed": lambda: narrow(49, 67, 50, (dtypes.uint8, dtypes.int8), dtypes.int32),
    "halves": lambda: narrow(48, 64, 64, HALVES, dtypes.float32),
    "odd halves": lambda: narrow(51, 63, 35, HALVES, dtypes.float32),
    "halves in blocks": lambda: narrow(50, 256, 40, HALVES, dtypes.float32),
    "weights of halves": lambda: narrow(49, 45, 50, HALVES, dtypes.float32, turned=True),
    "few columns of bytes": lambda: narrow(50, 64, 23, BYTES, dtypes.int32),
    "few columns of halves": lambda: narrow(70, 24, 24, HALVES, dtypes.float32, turned=True),
    "turned halves": lambda: narrow(51, 63, 35, HALVES, dtypes.float32, turned_left=True),
    "turned halves in blocks": lambda: narrow(26, 128, 20, HALVES, dtypes.float32, True, True),
    "turned bytes": lambda: narrow(53, 43, 37, BYTES, dtypes.int32, turned_left=True),
    "turned bytes in blocks": lambda: narrow(26, 256, 20, BYTES, dtypes.int32, turned_left=True),
    "turned bytes in uneven blocks": lambda: narrow(47, 58, 16, BYTES, dtypes.int32, turned_left=True),
    "turned unsigned": lambda: narrow(130, 67, 50, (dtypes.uint8, dtypes.int8), dtypes.int32, True, True),
    "a batch of halves": lambda: summed(
        x(3, 49, 32, dtype=dtypes.bfloat16), x(3, 32, 40, identity=2, dtype=dtypes.bfloat16), dtypes.float32
    ),
}


def signed(arrays, seed=1):
    """Elements of both signs, the extremes among them (sums of the halves stay exact)."""
    random = np.random.default_rng(seed)
    for slot, array in arrays.items():
        low, high = (
            (-128, 128) if array.dtype == np.int8 else (0, 256) if array.dtype == np.uint8 else (-9, 9)
        )
        arrays[slot] = random.integers(low, high, array.size).astype(array.dtype)
    return arrays


@pytest.mark.parametrize("name", sorted(GROUPED))
def test_groups_interpreted(name):
    (kernel,) = kernels_of(GROUPED[name]())
    arrays = signed(arrays_for(kernel, 0))
    wanted = meaning(kernel, arrays, 0)
    kernel_level = {slot: array.copy() for slot, array in arrays.items()}
    interpret_kernel(tiled(kernel, DOTS), kernel_level, {})
    np.testing.assert_array_equal(kernel_level[0], wanted)
    program = lowered(kernel, DOTS)
    assert any(node.op is ops.DOT for node in program.linear.src)
    np.testing.assert_array_equal(run(program, arrays, 0), wanted)


@pytest.mark.parametrize("name", sorted(GROUPED))
def test_groups_on_a_device(name):
    device = get_device("CPU")
    if not device.target.capabilities.dots:
        pytest.skip("this processor sums no groups")
    (kernel,) = kernels_of(GROUPED[name]())
    program = lowered(kernel, device.target)
    signature = Signature(program.name, len(program.parameters), 0, program.group)
    executable = device.load(device.compile(device.render(program), program.name), signature)
    arrays = signed(arrays_for(kernel, 0))
    found = launch(device, executable, program, arrays, 0)
    np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


def test_groups_only_where_the_target_has_them():
    for name in sorted(GROUPED):
        (kernel,) = kernels_of(GROUPED[name]())
        assert not any(node.op is ops.DOT for node in lowered(kernel, LANES).linear.src)


def test_long_reductions_go_in_blocks():
    for name in ("blocks of steps", "linear in blocks"):
        (kernel,) = kernels_of(CASES[name]())
        assert any("carry" in str(action) for action in tiled(kernel, LANES).arg)


def test_what_is_read_in_place():
    """Small and well-placed operands, and those with few rows to use a copy."""
    few = matmul(permute(x(70, 50), 1, 0), x(70, 10, identity=2))  # the rows have all lanes
    for root in (product(64, 30, 60), product(9, 200, 200), linear(9, 64, 64), product(50, 40, 8), few):
        (kernel,) = kernels_of(root)
        assert not any("stage" in str(action) for action in tiled(kernel, LANES).arg)


def test_columns_that_share_sets_of_a_cache_are_copied():
    """Rows that lie a multiple of a way apart crowd into few sets; a few bytes more and they do not."""
    caches = dataclasses.replace(LANES.capabilities, cache_bytes=(1 << 15, 1 << 20))
    target = dataclasses.replace(LANES, capabilities=caches)
    for columns, copied in ((1024, True), (1000, False)):
        (kernel,) = kernels_of(shrunk(columns))
        assert any("stage" in str(action) for action in tiled(kernel, target).arg) is copied


def shrunk(pitch):
    """64 rows times 260 rows of 64 columns that lie `pitch` elements apart."""
    wide = x(260, pitch, identity=2)
    columns = UOp(ops.SHRINK, wide.dtype, (wide,), ((0, 260), (0, 64)))
    return matmul(x(64, 260), columns)


def test_sums_that_are_widened_afterwards_are_no_groups():
    """The lanes are those of the widest dtype: an instruction for a whole register of sums does not fit."""
    device = get_device("CPU")
    (kernel,) = kernels_of(narrow(50, 64, 48, HALVES, dtypes.float32).cast(dtypes.float64) * 2)
    program = lowered(kernel, device.target)
    signature = Signature(program.name, len(program.parameters), 0, program.group)
    executable = device.load(device.compile(device.render(program), program.name), signature)
    arrays = signed(arrays_for(kernel, 0))
    np.testing.assert_array_equal(launch(device, executable, program, arrays, 0), meaning(kernel, arrays, 0))


SHORT = (dtypes.float16, dtypes.float16)
WIDENED = {
    "as they are": lambda: narrow(48, 64, 64, SHORT, dtypes.float32),
    "odd": lambda: narrow(53, 41, 75, SHORT, dtypes.float32),
    "in blocks": lambda: narrow(50, 97, 70, SHORT, dtypes.float32),
    "turned left": lambda: narrow(51, 63, 35, SHORT, dtypes.float32, turned_left=True),
    "turned right": lambda: narrow(61, 37, 43, SHORT, dtypes.float32, turned=True),
    "turned both": lambda: narrow(130, 96, 43, SHORT, dtypes.float32, True, True),
    "one wide operand": lambda: matmul(
        x(49, 40, dtype=dtypes.float32), x(40, 70, identity=2, dtype=dtypes.int8).cast(dtypes.float32)
    ),
    "a batch": lambda: summed(
        x(3, 49, 40, dtype=dtypes.float16), x(3, 40, 70, identity=2, dtype=dtypes.float16), dtypes.float32
    ),
}


@pytest.mark.parametrize("name", sorted(WIDENED))
def test_narrow_operands_are_converted_once(name):
    (kernel,) = kernels_of(WIDENED[name]())
    arrays = signed(arrays_for(kernel, 0))
    found = tiled(kernel, LANES)
    casts = [str(action) for action in found.arg if "cast" in str(action)]
    assert len(casts) == (1 if name == "one wide operand" else 2)
    consumed = [node for node in found.toposort() if node.op is ops.REDUCE]
    if name == "as they are":  # what is left over of blocks of steps is converted as it is read
        assert not any(r.op is ops.CAST for node in consumed for r in node.src[0].src)
    np.testing.assert_array_equal(run(lowered(kernel, LANES), arrays, 0), meaning(kernel, arrays, 0))


NARROW_PAIRS = {
    "bytes": (BYTES, dtypes.int32),
    "unsigned bytes": ((dtypes.uint8, dtypes.int8), dtypes.int32),
    "bfloat16": (HALVES, dtypes.float32),
    "float16": (SHORT, dtypes.float32),
    "mixed": ((dtypes.float16, dtypes.int8), dtypes.float32),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(13, 70), st.integers(2, 90), st.integers(2, 80)),
    st.sampled_from(sorted(NARROW_PAIRS)),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_any_shape_on_a_device(shape, name, turned, turned_left, threads):
    """Sums of small integers are exact whatever their order."""
    device = get_device("CPU")
    capabilities = dataclasses.replace(
        device.target.capabilities, cache_bytes=(1 << 9, 1 << 13), threads=threads
    )
    (kernel,) = kernels_of(narrow(*shape, *NARROW_PAIRS[name], turned, turned_left))
    program = lowered(kernel, dataclasses.replace(device.target, capabilities=capabilities))
    signature = Signature(program.name, len(program.parameters), 0, program.group)
    executable = device.load(device.compile(device.render(program), program.name), signature)
    arrays = signed(arrays_for(kernel, 0))
    found = launch(device, executable, program, arrays, 0)
    np.testing.assert_array_equal(found, meaning(kernel, arrays, 0))


def test_every_thread_gets_work():
    """Few tiles of columns and few rows: whatever can be shared is."""
    for rows, columns in ((64, 64), (40, 33), (24, 17), (64, 96)):
        (kernel,) = kernels_of(linear(rows, 60, columns))
        grid = [node for node in tiled(kernel, LANES).toposort() if node.op is ops.RANGE]
        assert any(node.arg[1] == "global" for node in grid), (rows, columns)
