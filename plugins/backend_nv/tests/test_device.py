"""The runtime against a driver in Python that keeps CUDA's C interface."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tinycore_backend_nv.device import open_device
from tinycore_backend_nv.driver import Driver
from tinycore_codegen_llvm.testing import SAMPLES, ProgramBuilder

from tinycore.errors import BackendUnavailable, BindingError, CompileError, TinycoreError
from tinycore.ir import UOp, dtypes
from tinycore.runtime.device import GraphDevice, Launch, Signature


def upload(device, array):
    memory = device.allocator.allocate(array.nbytes)
    device.allocator.copy_in(memory, memoryview(array).cast("B") if array.size else memoryview(b""))
    return memory


def download(device, memory, like):
    result = np.empty_like(like)
    device.allocator.copy_out(memoryview(result).cast("B"), memory)
    return result


def test_it_is_a_graph_device(device):
    assert isinstance(device, GraphDevice)
    assert (device.name, device.target.architecture) == ("NV", "sm_90")
    assert device.target.capabilities.threads == 132


def test_a_kernel_with_shared_memory(device, load):
    values = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    x, out = upload(device, values), upload(device, np.zeros(8, np.float32))
    load(SAMPLES["row_sums"]).launch([x, out], [], [8])
    np.testing.assert_allclose(
        download(device, out, values[:, 0].copy()), values.sum(1), rtol=1e-4, atol=1e-4
    )


def ids_program():
    """out[k] = z * 100 + y * 10 + x + n, over a grid that depends on a variable."""
    builder = ProgramBuilder()
    n = UOp.variable("n", 1, 9)
    bound = n.replace(dtype=dtypes.int64)
    z, y, x = builder.range(2, "global"), builder.range(bound, "global"), builder.range(3, "local")
    out = builder.buffer(0, dtypes.int64, 54)
    builder.store(out, (z * bound + y) * 3 + x, z * 100 + y * 10 + x + bound)
    return builder.program("ids", variables=(n,), grid=(2, n), group=(3,))


def test_grids_and_variables(device, load):
    kernel = load(ids_program())
    for n in (1, 4):
        out = upload(device, np.full(54, -1, np.int64))
        kernel.launch([out], [n], [2, n])
        expected = [z * 100 + y * 10 + x + n for z in range(2) for y in range(n) for x in range(3)]
        answer = download(device, out, np.empty(54, np.int64))
        np.testing.assert_array_equal(answer[: 6 * n], expected)
        assert (answer[6 * n :] == -1).all()


def test_launches_are_checked(device, load):
    kernel = load(ids_program())
    with pytest.raises(BindingError, match="takes 1 buffers and 1 variables, and was given 1 and 0"):
        kernel.launch([0], [], [2, 1])
    before = len(device.fake.calls)
    kernel.launch([0], [3], [2, 0])
    assert "cuLaunchKernel" not in device.fake.calls[before:]


def test_graphs_replay_and_change(device, load):
    kernel, sums = load(ids_program()), load(SAMPLES["row_sums"])
    first, second = (upload(device, np.full(54, -1, np.int64)) for _ in range(2))
    rows = np.arange(2048, dtype=np.float32)
    x, total = upload(device, rows), upload(device, np.zeros(8, np.float32))
    launches = [Launch(kernel, (first,), (2,), (2, 2)), Launch(sums, (x, total), (), (8,))]
    graph = device.capture(launches)
    assert (download(device, first, np.empty(54, np.int64)) == -1).all()
    graph.replay()
    assert (download(device, first, np.empty(54, np.int64))[:12] >= 2).all()
    np.testing.assert_array_equal(
        download(device, total, np.empty(8, np.float32)), rows.reshape(8, 256).sum(1)
    )
    graph.update(0, Launch(kernel, (second,), (4,), (2, 4)))
    graph.replay()
    answer = download(device, second, np.empty(54, np.int64))
    assert (answer[:24] >= 4).all() and (answer[24:] == -1).all()
    with pytest.raises(TinycoreError, match="runs ids, not another"):
        graph.update(0, launches[1])


def test_graphs_take_the_buffers_of_all_launches(device, load):
    kernel, sums = load(ids_program()), load(SAMPLES["row_sums"])
    first, second = (upload(device, np.full(54, -1, np.int64)) for _ in range(2))
    rows = np.arange(2048, dtype=np.float32)
    x, total, other = upload(device, rows), *(upload(device, np.zeros(8, np.float32)) for _ in range(2))
    graph = device.capture([Launch(kernel, (first,), (4,), (2, 4)), Launch(sums, (x, total), (), (8,))])
    graph.rebind([second, x, other])
    graph.replay()
    assert (download(device, first, np.empty(54, np.int64)) == -1).all()
    assert (download(device, second, np.empty(54, np.int64))[:24] >= 4).all()
    np.testing.assert_array_equal(
        download(device, other, np.empty(8, np.float32)), rows.reshape(8, 256).sum(1)
    )
    assert not download(device, total, np.empty(8, np.float32)).any()
    for wrong in ([second, x], [second, x, other, x]):
        with pytest.raises(BindingError, match="takes 3 buffers"):
            graph.rebind(wrong)


def test_graphs_that_nobody_holds_are_given_back(device, load):
    out = upload(device, np.zeros(54, np.int64))
    device.capture([Launch(load(ids_program()), (out,), (2,), (2, 2))]).replay()
    assert not {"graph", "node", "executable"} & set(device.fake.alive())


def test_time_is_measured_by_events(device, load):
    kernel = load(ids_program())
    out = upload(device, np.zeros(54, np.int64))
    assert device.elapsed(kernel, [out], [1], [2, 1]) > 0
    assert "event" not in device.fake.alive()


def test_memory_is_reused_and_given_back_under_pressure(device):
    allocator = device.allocator
    address = allocator.allocate(1000)
    allocator.free(address, 1000)
    assert allocator.allocate(1000) == address
    large = [allocator.allocate(4 << 20) for _ in range(3)]
    with pytest.raises(TinycoreError, match=r"no room for 12582912 bytes"):
        allocator.allocate(12 << 20)
    for each in large:
        allocator.free(each, 4 << 20)
    allocator.free(address, 1000)
    allocator.free(allocator.allocate(12 << 20), 12 << 20)  # only after the idle blocks went back
    assert allocator.allocate(0)


def test_views_and_bytes(device):
    values = np.arange(100, dtype=np.int32)
    memory = upload(device, values)
    part = device.allocator.view(memory, 64, 64)
    np.testing.assert_array_equal(download(device, part, values[:16].copy()), values[16:32])
    assert device.allocator.host_view(memory, 400) is None


def test_bad_code_is_refused_with_the_log(device):
    signature = Signature("k", 0, 0)
    with pytest.raises(CompileError, match=r"CUDA_ERROR_INVALID_PTX(.|\n)*ptxas fatal: line 1"):
        device.load(b"not ptx\0", signature)
    source = device.render(SAMPLES["matmul"])
    with pytest.raises(CompileError, match="holds no such kernel"):
        device.load(device.compile(source, "matmul"), signature)


def test_other_threads_may_use_it(device, load):
    kernel = load(ids_program())
    out = upload(device, np.zeros(54, np.int64))
    before = device.fake.calls.count("cuCtxSetCurrent")
    thread = threading.Thread(target=kernel.launch, args=([out], [1], [2, 1]))
    thread.start()
    thread.join()
    assert device.fake.calls.count("cuCtxSetCurrent") == before + 1
    assert download(device, out, np.empty(54, np.int64))[0] == 1


@pytest.mark.parametrize(
    ("card", "architecture"),
    [
        ({"capability": (8, 9)}, "sm_89"),
        ({"capability": (8, 8)}, "sm_87"),  # unknown: the newest that its PTX runs on
        ({"capability": (10, 0), "version": 12080}, "sm_100"),
        ({"capability": (10, 0), "version": 12000}, "sm_90"),  # a driver that cannot translate newer PTX
        ({"capability": (12, 0), "version": 13000}, "sm_120"),
        ({"capability": (15, 0), "version": 14000}, "sm_121"),
    ],
)
def test_the_architecture_follows_card_and_driver(make_cuda, card, architecture):
    device = open_device(driver=Driver(make_cuda(**card)))
    assert device.target.architecture == architecture
    device.close()


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"capability": (7, 5)}, "compute capability 7.5 is too old"),
        ({"version": 11080}, "the driver is for CUDA 11.8, and 12.0 is needed"),
        ({"count": 0}, "no NVIDIA GPU number 0, only 0"),
    ],
)
def test_what_cannot_be_used_is_refused(make_cuda, card, message):
    with pytest.raises(BackendUnavailable, match=message):
        open_device(driver=Driver(make_cuda(**card)))


def test_an_old_driver_is_told_apart(cuda):
    del cuda.cuGraphAddKernelNode_v2
    with pytest.raises(BackendUnavailable, match="has no cuGraphAddKernelNode_v2"):
        Driver(cuda)


def test_without_a_driver_it_says_what_to_install(monkeypatch):
    import ctypes

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendUnavailable, match="hint: install NVIDIA's driver"):
        open_device()
