"""The device as the runtime uses it: compile, load, launch, capture, replay."""

from __future__ import annotations

import array

import pytest
from tinycore_backend_cpu import compile_target, open_device
from tinycore_backend_cpu.host import cache_sizes, host_target, vector_unit

from tinycore.codegen.program import Program
from tinycore.errors import BackendUnavailable, BindingError, CompileError, DataError, TinycoreError
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime.device import GraphDevice, Launch, Signature

SOURCE = """
; out[i] = in[i] + n
define void @add(ptr %words, i64 %chunk, i64 %thread) {
  %in_at = getelementptr ptr, ptr %words, i64 1
  %n_at = getelementptr i64, ptr %words, i64 2
  %out = load ptr, ptr %words
  %in = load ptr, ptr %in_at
  %n = load i64, ptr %n_at
  %p = getelementptr i64, ptr %in, i64 %chunk
  %q = getelementptr i64, ptr %out, i64 %chunk
  %v = load i64, ptr %p
  %w = add i64 %v, %n
  store i64 %w, ptr %q
  ret void
}
"""
ADD = Signature("add", 2, 1)


@pytest.fixture(scope="module")
def device():
    opened = open_device()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def add(device):
    return device.load(device.compile(SOURCE, "add"), ADD)


def put(device, values):
    data = array.array("q", values)
    memory = device.allocator.allocate(8 * len(data))
    device.allocator.copy_in(memory, memoryview(data))
    return memory


def get(device, memory, count):
    data = array.array("q", [0]) * count
    device.allocator.copy_out(memoryview(data), memory)
    return list(data)


def test_it_is_a_graph_device(device):
    assert isinstance(device, GraphDevice)
    assert device.name == "CPU"
    assert device.target.name == "CPU"
    assert device.target.fingerprint


@pytest.mark.parametrize("grid", [(), (1,), (12,), (3, 4), (2, 3, 2), (0,), (5, 0)])
def test_launch_covers_the_grid(device, add, grid):
    chunks = 1
    for bound in grid:
        chunks *= bound
    source, target = put(device, range(20)), put(device, [-1] * 20)
    add.launch([target, source], [100], grid)
    device.synchronize()
    assert get(device, target, 20) == [100 + i if i < chunks else -1 for i in range(20)]


@pytest.mark.parametrize(
    ("buffers", "variables"), [([0], [1]), ([0, 0], []), ([0, 0, 0], []), ([0, 0], [1, 2])]
)
def test_a_wrong_number_of_arguments_never_reaches_the_kernel(device, add, buffers, variables):
    with pytest.raises(BindingError, match="add takes 2 buffers and 1 variables"):
        add.launch(buffers, variables, (1,))
    with pytest.raises(BindingError, match="add takes 2 buffers and 1 variables"):
        device.capture([Launch(add, tuple(buffers), tuple(variables), (1,))])


def test_elapsed_runs_the_kernel_once(device, add):
    source, target = put(device, [1] * 4), put(device, [0] * 4)
    assert 0 < device.elapsed(add, [source, source], [1], (4,)) < 10
    assert get(device, source, 4) == [2] * 4
    assert get(device, target, 4) == [0] * 4


def test_capture_replay_and_update(device, add):
    a, b, c, d = (put(device, [start] * 30) for start in (0, 0, 0, 500))
    graph = device.capture([Launch(add, (b, a), (1,), (30,)), Launch(add, (c, b), (10,), (5, 6))])
    assert get(device, c, 30) == [0] * 30
    for _ in range(3):
        graph.replay()
    assert get(device, b, 30) == [1] * 30
    assert get(device, c, 30) == [11] * 30
    graph.update(0, Launch(add, (b, d), (7,), (10,)))
    graph.replay()
    assert get(device, b, 30) == [507] * 10 + [1] * 20
    assert get(device, c, 30) == [517] * 10 + [11] * 20
    device.capture([]).replay()


def test_rebind_keeps_variables_and_grids(device, add):
    a, b, c, d = (put(device, [start] * 30) for start in (0, 0, 0, 500))
    graph = device.capture([Launch(add, (b, a), (1,), (30,)), Launch(add, (c, b), (10,), (5, 6))])
    graph.rebind([b, d, a, b])
    graph.replay()
    assert get(device, b, 30) == [501] * 30
    assert get(device, a, 30) == [511] * 30
    assert get(device, c, 30) == [0] * 30
    for wrong in ([b, d, a], [b, d, a, b, c]):
        with pytest.raises(BindingError, match="takes 4 buffers"):
            graph.rebind(wrong)


def test_a_graph_keeps_its_executables(device):
    """The code stays mapped although nobody else holds the executable."""
    memory = put(device, [0] * 4)
    graph = device.capture(
        [Launch(device.load(device.compile(SOURCE, "add"), ADD), (memory, memory), (1,), (4,))]
    )
    for _ in range(10):
        graph.replay()
    assert get(device, memory, 4) == [10] * 4


def test_a_graph_refuses_another_executable(device, add):
    memory = put(device, [0] * 4)
    graph = device.capture([Launch(add, (memory, memory), (1,), (4,))])
    other = device.load(device.compile(SOURCE, "add"), ADD)
    with pytest.raises(TinycoreError, match="runs add"):
        graph.update(0, Launch(other, (memory, memory), (1,), (4,)))
    with pytest.raises(TinycoreError, match="another device"):
        device.capture([Launch(object(), (), (), ())])


def test_bad_source_and_bad_binaries(device):
    with pytest.raises(CompileError, match="line 1"):
        device.compile("this is no IR", "k")
    good = device.compile(SOURCE, "add")
    with pytest.raises(DataError):
        device.load(good[:100], ADD)
    with pytest.raises((DataError, CompileError), match="subtract"):
        device.load(good, Signature("subtract", 2, 1))


def test_targets():
    assert compile_target() == host_target() == compile_target("native")
    with pytest.raises(BackendUnavailable, match="z80"):
        compile_target("z80")


def test_vector_units():
    assert vector_unit("x86_64", frozenset({"sse2", "avx", "avx2"})) == (32, 16)
    assert vector_unit("x86_64", frozenset({"sse2"})) == (16, 16)
    assert vector_unit("x86_64", frozenset({"avx2", "avx512f"})) == (32, 16)
    assert vector_unit("x86_64", frozenset({"avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"})) == (
        64,
        32,
    )
    assert vector_unit("arm64", frozenset()) == (16, 32)
    assert all(size >= 1 << 12 for size in cache_sizes())
    assert list(cache_sizes()) == sorted(cache_sizes())


def test_a_program_becomes_running_code(device):
    """out[row] = sum over columns of in[row * n + column], with a symbolic n, rows on all threads."""
    n = UOp(ops.VARIABLE, dtypes.int64, (), ("n", 1, 64, 1))
    one, yes = UOp.const(dtypes.int64, 5), UOp.const(dtypes.bool_, True)
    target, source = (UOp(ops.PARAM, dtypes.float32, (), (slot, (320,))) for slot in (0, 1))
    row = UOp(ops.RANGE, dtypes.int64, (one,), (0, "global"))
    total = UOp(ops.ACCUMULATOR, dtypes.float32, (UOp.const(dtypes.float32, 0.0),), 0)
    column = UOp(ops.RANGE, dtypes.int64, (n,), (1, "reduce"))
    start = UOp(ops.MUL, dtypes.int64, (row, n))
    index = UOp(ops.ADD, dtypes.int64, (start, column))
    load = UOp(ops.LOAD, dtypes.float32, (source, index, yes), 1)
    added = UOp(ops.ADD, dtypes.float32, (total, load))
    update = UOp(ops.UPDATE, dtypes.void, (total, added))
    end = UOp(ops.END, dtypes.void, (column,))
    after = UOp(ops.AFTER, dtypes.float32, (total, end))
    store = UOp(ops.STORE, dtypes.void, (target, row, after, yes))
    lines = (row, total, column, start, index, load, added, update, end, after, store)
    linear = UOp(ops.LINEAR, dtypes.void, lines, None)
    program = Program("row_sums", linear, (target, source), (n,), frozenset({0}), (5,))
    code = device.compile(device.render(program), program.name)
    kernel = device.load(code, Signature(program.name, 2, 1))
    values = array.array("f", range(320))
    memories = [device.allocator.allocate(4 * 320) for _ in range(2)]
    device.allocator.copy_in(memories[1], memoryview(values))
    for length in (1, 7, 64):
        kernel.launch(memories, [length], (5,))
        out = array.array("f", [0.0]) * 5
        device.allocator.copy_out(memoryview(out), memories[0])
        assert list(out) == [sum(values[row * length : (row + 1) * length]) for row in range(5)]
