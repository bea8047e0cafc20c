"""The runtime: memory, launches, time, errors. Kernels here are written by hand."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from tinycore_backend_cl import api, compile_target, open_device, query
from tinycore_backend_cl.program import SOURCE, build_error, pack

from tinycore.errors import BackendUnavailable, CompileError, TinycoreError
from tinycore.ir import dtypes, ops
from tinycore.runtime.device import Device, Signature

ADD = """\
__kernel void add(__global float* out, const ulong out_start, const __global float* x, const ulong x_start,
                  const long n) {
  const size_t i = get_global_id(0);
  out[i + out_start / 4] = x[i + x_start / 4] + (float)n;
}
"""
SIGNATURE = Signature("add", 2, 1)


def as_bytes(array):
    return memoryview(array.reshape(-1).view(np.uint8))


@pytest.fixture
def add(device):
    return device.load(device.compile(ADD, "add"), SIGNATURE)


@pytest.fixture
def filled(device):
    """Makes buffers from arrays."""

    def fill(array):
        memory = device.allocator.allocate(array.nbytes)
        device.allocator.copy_in(memory, as_bytes(array))
        return memory

    return fill


def read(device, memory, like):
    out = np.empty_like(like)
    device.allocator.copy_out(as_bytes(out), memory)
    return out


def test_it_is_a_device(device):
    wanted = [name for name in dir(Device) if not name.startswith("_")]
    assert wanted and all(hasattr(device, name) for name in [*wanted, "name", "target", "allocator"])
    assert device.name == "CL" and device.target.name == "CL"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_launches_and_copies(device, add, filled, size):
    x = np.arange(size, dtype=np.float32)
    out = filled(np.zeros(size, np.float32))
    add.launch([out, filled(x)], [3], [size])
    np.testing.assert_array_equal(read(device, out, x), x + 3)
    add.launch([out, out], [-5], [size])
    np.testing.assert_array_equal(read(device, out, x), x - 2)


def test_views_are_parts_at_any_64_byte_offset(device, add, filled):
    x = np.arange(64, dtype=np.float32)
    whole = filled(x)
    part = device.allocator.view(device.allocator.view(whole, 64, 128), 64, 64)
    add.launch([part, whole], [100], [16])
    expected = x.copy()
    expected[32:48] = x[:16] + 100
    np.testing.assert_array_equal(read(device, whole, x), expected)
    np.testing.assert_array_equal(read(device, part, x[:16]), expected[32:48])
    device.allocator.copy_in(part, as_bytes(np.full(16, 9, np.float32)))
    assert (read(device, whole, x)[32:48] == 9).all()


def test_empty_allocations_copies_and_launches(device, add):
    memory = device.allocator.allocate(0)
    device.allocator.copy_in(memory, memoryview(b""))
    device.allocator.copy_out(memoryview(bytearray()), memory)
    add.launch([memory, memory], [1], [0])
    assert device.elapsed(add, [memory, memory], [1], [0]) == 0.0
    device.allocator.free(memory, 0)


def test_read_only_sources_can_be_copied_in(device):
    memory = device.allocator.allocate(4)
    device.allocator.copy_in(memory, memoryview(b"abcd"))
    assert read(device, memory, np.zeros(4, np.uint8)).tobytes() == b"abcd"


def test_elapsed_is_the_time_on_the_device(device, add, filled):
    x = np.zeros(1 << 20, np.float32)
    buffers = [filled(x), filled(x)]
    seconds = device.elapsed(add, buffers, [1], [x.size])
    assert 0 < seconds < 5
    assert read(device, buffers[0], x)[-1] == 1


def test_grids_count_from_the_last_dimension(device, filled):
    source = """\
    __kernel __attribute__((reqd_work_group_size(2, 1, 1)))
    void where(__global int* out, const ulong start) {
      const int i = get_group_id(1), j = get_group_id(0), k = get_local_id(0);
      out[(i * 3 + j) * 2 + k] = i * 100 + j * 10 + k;
    }
    """
    kernel = device.load(device.compile(source, "where"), Signature("where", 1, 0, (2,)))
    out = filled(np.zeros(12, np.int32))
    kernel.launch([out], [], [2, 3])
    expected = [[[i * 100 + j * 10 + k for k in range(2)] for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(read(device, out, np.zeros((2, 3, 2), np.int32)), expected)


def test_compile_errors_show_the_line(device):
    wrong = ADD.replace("(float)n", "missing")
    with pytest.raises(CompileError) as caught:
        device.compile(wrong, "add")
    text = str(caught.value)
    assert "undeclared identifier 'missing'" in text and "4 |   out[i" in text
    lines = text.splitlines()
    assert lines[2][lines[1].index("missing")] == "^"


@pytest.mark.parametrize(
    "log, line",
    [
        ("<kernel>:2:9: error: use of undeclared identifier 'c'", "2 | int b = c;"),
        ("error: /tmp/x.cl:2:9: use of undeclared identifier 'c'", "2 | int b = c;"),
        ("input.cl:1:1: warning: odd\ninput.cl:2:9: fatal error: no", "2 | int b = c;"),
        ("C:\\tmp\\x.cl:2:9: error: no", "2 | int b = c;"),
        ("something else went wrong", "something else went wrong"),
        ("x.cl:77:1: error: beyond the end", "x.cl:77:1: error: beyond the end"),
    ],
)
def test_logs_of_several_compilers(log, line):
    assert line in str(build_error("k", "int a;\nint b = c;\n", log))


def test_signatures_are_checked(device):
    code = device.compile(ADD, "add")
    with pytest.raises(CompileError, match="takes 5 arguments, its signature says 7"):
        device.load(code, Signature("add", 3, 1))
    with pytest.raises(CompileError, match="work-items"):
        device.load(code, Signature("add", 2, 1, (1 << 20,)))
    with pytest.raises(TinycoreError, match="CL_INVALID_KERNEL_NAME"):
        device.load(code, Signature("nobody", 2, 1))


def test_code_that_is_none_is_refused(device):
    code = device.compile(ADD, "add")
    with pytest.raises(CompileError, match="not code for an OpenCL device"):
        device.load(b"\x7fELF...", SIGNATURE)
    for broken in (code[:40], code[:-1], code[:-1] + bytes([code[-1] ^ 1]), b""):
        with pytest.raises(CompileError, match="not code for an OpenCL device"):
            device.load(broken, SIGNATURE)


def test_drivers_without_binaries_get_the_source(device, filled):
    kernel = device.load(pack(SOURCE, ADD.encode()), SIGNATURE)
    out = filled(np.zeros(3, np.float32))
    kernel.launch([out, filled(np.ones(3, np.float32))], [1], [3])
    assert read(device, out, np.zeros(3, np.float32)).tolist() == [2, 2, 2]


def test_threads_may_share_a_kernel(device, add, filled):
    x = np.arange(64, dtype=np.float32)
    outs = [filled(np.zeros_like(x)) for _ in range(4)]
    source = filled(x)

    def many(k):
        for _ in range(50):
            add.launch([outs[k], source], [k], [64])

    threads = [threading.Thread(target=many, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, out in enumerate(outs):
        np.testing.assert_array_equal(read(device, out, x), x + k)


def test_too_large_allocations_say_so(device):
    with pytest.raises(TinycoreError, match="larger than"):
        device.allocator.allocate(1 << 60)


def test_no_loader_says_what_to_install():
    with pytest.raises(BackendUnavailable, match="apt install"):
        api.Library(["libNoSuchOpenCL.so.9"])


def test_no_driver_says_what_to_install():
    """The loader finds its drivers by files in a folder; an empty one means none."""
    code = "import tinycore_backend_cl as b\ntry: b.open_device()\nexcept Exception as e: print(repr(e))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"OCL_ICD_VENDORS": "/nonexistent", "PATH": "/usr/bin"},
        check=False,
    )
    if "BackendUnavailable" not in answer.stdout and not answer.stdout.strip():
        pytest.skip("this loader does not look at OCL_ICD_VENDORS")
    assert "BackendUnavailable" in answer.stdout and "install" in answer.stdout


def test_devices_are_numbered():
    with pytest.raises(BackendUnavailable, match="no OpenCL device number 99"):
        open_device(99)


def test_a_device_can_be_closed_and_opened_again():
    first = open_device()
    first.load(first.compile(ADD, "add"), SIGNATURE)
    first.close()
    second = open_device()
    memory = second.allocator.allocate(16)
    second.allocator.free(memory, 16)
    second.close()


def test_capabilities_follow_the_device(device):
    able = device.target.capabilities
    assert able.workgroups and able.local_size >= 1 and able.shared_bytes >= 1024 and able.max_buffers >= 8
    assert dtypes.float16 in able.dtypes and dtypes.bfloat16 in able.dtypes
    assert not able.has(ops.EXP2)
    half = query.GENERIC.extensions | {"cl_khr_fp16"}
    gpu = query.capabilities(replace(query.GENERIC, extensions=half))
    plain = query.capabilities(replace(query.GENERIC, extensions=frozenset(), double=0, single=2))
    assert dtypes.float16 in gpu.arithmetic and dtypes.float64 in gpu.dtypes and gpu.has(ops.FMA)
    assert dtypes.float64 not in plain.dtypes and dtypes.float16 not in plain.arithmetic
    assert not plain.has(ops.FMA)


def test_targets_need_no_device():
    assert compile_target("adreno").architecture == "adreno"
    assert compile_target().capabilities.workgroups
