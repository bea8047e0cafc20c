"""The kernel cache on disk: warm starts compile nothing, and no state of the directory makes a program fail."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from graphs import DEVICES, assign, compilations, contiguous, data, need, node, reshape, run, total

from tinycore.config import override
from tinycore.errors import CompileError
from tinycore.ir import UOp, ops
from tinycore.runtime import compiler
from tinycore.runtime.cache import CacheWarning
from tinycore.runtime.devices import get_device
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host

COMPILING = [name for name in DEVICES if name != "INTERPRETER"]


@pytest.fixture
def cache(tmp_path):
    """An empty cache directory; code that was loaded before is forgotten."""
    compiler.forget_loaded()
    with override(cache=True, cache_directory=tmp_path / "cache"):
        yield tmp_path / "cache"
    compiler.forget_loaded()


def program(x):
    return [contiguous(x * 3 + 1) * 2 + x, reshape(total(x * 7, 0))]


def check(device, expected_compilations):
    array = data((23,), np.int32)
    with compilations() as names, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        first, second = run(program, [array], device)
    np.testing.assert_array_equal(first, (array * 3 + 1) * 2 + array)
    assert second == (array * 7).sum()
    assert len(names) == expected_compilations
    return [str(warning.message) for warning in seen if issubclass(warning.category, CacheWarning)]


@pytest.fixture
def compiling_threads(monkeypatch):
    """The threads that the CPU's compiler ran on, by the names of kernels."""
    need("CPU")
    threads: dict[str, str] = {}
    compile_ = type(get_device("CPU")).compile

    def watched(self, source, name):
        threads[name] = threading.current_thread().name
        return compile_(self, source, name)

    monkeypatch.setattr(type(get_device("CPU")), "compile", watched)
    return threads


def test_several_kernels_are_compiled_beside_lowering_and_equal_ones_once(cache, compiling_threads):
    interval = sys.getswitchinterval()
    x = from_host(data((9,), np.int32), "CPU")
    y = from_host(data((9,), np.int32, 1), "CPU")
    results = realize([x * 3, y * 3, total(x, 0), x - 1])
    assert len(compiling_threads) == 3
    assert all(name.startswith("tinycore-compile") for name in compiling_threads.values())
    assert sys.getswitchinterval() == interval
    for result, wanted in zip(
        results, (to_host(x) * 3, to_host(y) * 3, to_host(x).sum(), to_host(x) - 1), strict=True
    ):
        np.testing.assert_array_equal(np.squeeze(to_host(result)), wanted)


def test_one_kernel_is_compiled_where_it_is_asked_for(cache, compiling_threads):
    realize([from_host(data((9,), np.int32), "CPU") * 5])
    assert list(compiling_threads.values()) == [threading.current_thread().name]


def test_a_kernel_that_cannot_be_compiled_among_several(cache, monkeypatch):
    need("CPU")
    device, x = get_device("CPU"), from_host(data((9,), np.int32), "CPU")
    interval, compile_, seen = sys.getswitchinterval(), device.compile, []

    def broken(source, name):
        seen.append(name)
        if len(seen) == 2:
            raise CompileError("no code for this one")
        return compile_(source, name)

    monkeypatch.setattr(device, "compile", broken, raising=False)
    with pytest.raises(CompileError, match="no code for this one"):
        realize([assign(x, x * 3), total(x * 2, 0), x * 11])
    assert sys.getswitchinterval() == interval
    np.testing.assert_array_equal(to_host(x), data((9,), np.int32))  # nothing has run
    monkeypatch.undo()
    np.testing.assert_array_equal(to_host(realize([x * 11])[0]), data((9,), np.int32) * 11)


def entries(cache):
    return sorted((cache / "kernels").rglob("*.entry"))


@pytest.mark.parametrize("device", COMPILING)
def test_a_warm_start_compiles_nothing(cache, device):
    need(device)
    assert check(device, 3) == []
    assert len(entries(cache)) == 3
    assert check(device, 0) == []
    compiler.forget_loaded()
    assert check(device, 0) == []


def test_a_warm_start_runs_no_pass(cache, monkeypatch):
    need("CPU")
    check("CPU", 3)
    compiler.forget_loaded()

    def refuse(*arguments):
        raise AssertionError("a pass ran")

    monkeypatch.setattr(compiler, "lower", refuse)
    check("CPU", 0)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_damaged_entries_are_compiled_again(cache, damage):
    need("CPU")
    check("CPU", 3)
    good = {path: path.read_bytes() for path in entries(cache)}
    for path, content in good.items():
        os.chmod(path, 0o600)
        path.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
                "empty": b"",
                "foreign": b"\x7fELF" + os.urandom(300),
            }[damage]
        )
    compiler.forget_loaded()
    assert len(check("CPU", 3)) == 1, "one warning for all entries"
    assert {path: path.read_bytes() for path in entries(cache)} == good
    compiler.forget_loaded()
    assert check("CPU", 0) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0\0",
        b"\1\0\0\0\xff\xff\0\0{}",
        b"\1\0\0\0\2\0\0\0{}code",
        b"\2\0\0\0\2\0\0\0{}code",
        b"\1\0\0\0\4\0\0\0nope",
    ],
)
def test_sound_entries_of_another_format_are_compiled_again(cache, content):
    """The checksum is right, what it covers was written by somebody else."""
    need("CPU")
    check("CPU", 3)
    disk = compiler._cache()
    for path in entries(cache):
        disk.put(path.stem, content)
    compiler.forget_loaded()
    assert len(check("CPU", 3)) <= 1
    compiler.forget_loaded()
    check("CPU", 0)


@pytest.mark.parametrize("device", COMPILING)
def test_code_that_does_not_load_is_compiled_again(cache, device):
    need(device)
    check(device, 3)
    disk = compiler._cache()
    for path in entries(cache):
        entry = compiler._unpack(disk.get(path.stem))
        disk.put(
            path.stem,
            compiler._pack(
                compiler._Entry(
                    b"not code at all",
                    entry.signature,
                    entry.variables,
                    entry.grid,
                    entry.operations,
                    entry.traffic,
                )
            ),
        )
    compiler.forget_loaded()
    assert len(check(device, 3)) <= 1
    compiler.forget_loaded()
    check(device, 0)


def test_symbolic_kernels_survive_the_disk(cache):
    need("CPU")
    n = UOp.variable("n", 1, 5000)

    def once(size):
        array = data((size, 3), np.int32)
        x = from_host(array, "CPU", shape=(n, 3), bindings={n: size})
        (result,) = realize([x * 2 + 1], {n: size})
        np.testing.assert_array_equal(to_host(result, {n: size}), array * 2 + 1)

    with compilations() as names:
        once(7)
        compiler.forget_loaded()
        for size in (1, 4999, 64):
            once(size)
    assert len(names) == 1


def test_without_a_cache(cache):
    need("CPU")
    with override(cache=False):
        check("CPU", 3)
        compiler.forget_loaded()
        check("CPU", 3)
    assert not cache.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes of files are different there")
def test_a_directory_of_others(cache):
    need("CPU")
    cache.mkdir()
    cache.chmod(0o777)
    assert len(check("CPU", 3)) == 1
    compiler.forget_loaded()
    assert check("CPU", 3) == []
    assert not list(cache.iterdir())


def test_a_file_instead_of_a_directory(cache):
    need("CPU")
    cache.write_text("not a directory")
    assert len(check("CPU", 3)) == 1
    compiler.forget_loaded()
    assert check("CPU", 3) == []


@pytest.mark.parametrize("number", [28, 30], ids=["full", "read only"])
def test_a_disk_that_takes_nothing(cache, monkeypatch, number):
    need("CPU")
    from tinycore.runtime.cache import DiskCache

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(DiskCache, "_write", full)
    assert len(check("CPU", 3)) == 1
    compiler.forget_loaded()
    assert check("CPU", 3) == []


def test_the_validated_and_the_plain_kernel_are_not_mixed_up(cache):
    need("CPU")
    check("CPU", 3)
    with override(validate=True):
        check("CPU", 3)
    check("CPU", 0)


def test_debug_output_is_that_of_a_real_compilation(cache, capsys):
    need("CPU")
    check("CPU", 3)
    compiler.forget_loaded()
    with override(debug=4):
        check("CPU", 3)
    assert "define" in capsys.readouterr().out


def test_the_key_covers_what_decides(cache):
    need("CPU")
    from dataclasses import replace

    from graphs import schedule_of, without_tiling

    from tinycore.runtime.environment import environment, override_environment

    target = get_device("CPU").target
    (one,), (other,) = (schedule_of(node((8,)) + value).steps for value in (1.0, 2.0))
    keys = {
        compiler.cache_key(one.kernel, target),
        compiler.cache_key(other.kernel, target),
        compiler.cache_key(one.kernel, replace(target, fingerprint="other")),
        compiler.cache_key(one.kernel, replace(target, architecture="other")),
        compiler.cache_key(one.kernel, replace(target, name="OTHER")),
    }
    with without_tiling():
        keys.add(compiler.cache_key(one.kernel, target))
    with override_environment(replace(environment(), versions=(("some-plugin", "9.9"),))):
        keys.add(compiler.cache_key(one.kernel, target))
    assert len(keys) == 7


def test_passes_of_another_environment_compile_anew(cache):
    need("CPU")
    from graphs import without_tiling

    check("CPU", 3)
    with without_tiling():
        check("CPU", 3)
        check("CPU", 0)
    check("CPU", 0)


def test_a_compiler_that_fails(cache, monkeypatch):
    need("CPU")
    device = get_device("CPU")

    def fail(source, name):
        raise CompileError("no")

    with monkeypatch.context() as patch:
        patch.setattr(device, "compile", fail)
        with pytest.raises(CompileError):
            check("CPU", 3)
    assert entries(cache) == []
    check("CPU", 3)


# --- processes ----------------------------------------------------------------------------------------------

CHILD = textwrap.dedent("""
    import os, sys, warnings
    warnings.simplefilter("error")
    import numpy as np
    from tinycore.runtime import compiler
    from tinycore.runtime.realize import realize
    from tinycore.runtime.storage import from_host, to_host
    names = []
    compiler.compile_hooks.append(lambda kernel, program, source: names.append(program.name))
    for size in range(2, 12):
        x = from_host(np.arange(size, dtype=np.int32), "CPU")
        (result,) = realize([x * size + 1])
        assert (to_host(result) == np.arange(size) * size + 1).all()
    print(len(names), "llvmlite" in sys.modules)
""")


def children(directory, count, **more):
    """What so many processes at once print."""
    environment = {**os.environ, "TINYCORE_CACHE_DIR": str(directory), "TINYCORE_THREADS": "2", **more}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    printed = []
    for process in started:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        printed.append(out.split())
    return printed


def test_two_processes_at_once_and_a_third_one_later(tmp_path):
    need("CPU")
    cold = children(tmp_path / "cache", 2)
    assert all(10 >= int(count) >= 0 for count, _ in cold)
    assert sum(int(count) for count, _ in cold) >= 10
    (warm,) = children(tmp_path / "cache", 1)
    assert warm == ["0", "False"], "a warm start compiles nothing and imports no compiler"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory(tmp_path):
    need("CPU")
    children(tmp_path / "cache", 1)
    for path in [tmp_path / "cache", *Path(tmp_path / "cache").rglob("*")]:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    assert children(tmp_path / "cache", 1) == [["0", "False"]]


def test_in_place_kernels_are_cached_too(cache):
    need("CPU")
    for expected in (1, 0):
        compiler.forget_loaded()
        x = from_host(np.arange(9, dtype=np.int32), "CPU")
        with compilations() as names:
            realize([assign(x, x.alu(ops.MAX, x.const_like(4)))])
        np.testing.assert_array_equal(to_host(x), np.maximum(np.arange(9), 4))
        assert len(names) == expected
