"""What this processor can do, as `Capabilities`, without asking LLVM."""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
from pathlib import Path

from tinycore_codegen_llvm import fingerprint as renderer_fingerprint

from tinycore.ir import dtypes
from tinycore.ir.ops import ops
from tinycore.ir.target import BASIC_OPS, Capabilities, Dot, Target
from tinycore_backend_cpu.compile import fingerprint
from tinycore_backend_cpu.pool import available_threads

NAME = "CPU"

_FLOAT8 = frozenset({dtypes.float8_e4m3, dtypes.float8_e5m2})
_STORED = frozenset(dtypes.DATA) - _FLOAT8
# Half-width floats are converted, not computed in: every operation would round, and processors widen anyway.
_COMPUTED = _STORED - {dtypes.float16, dtypes.bfloat16}


@functools.cache
def processor_features() -> frozenset[str]:
    """The instruction set extensions of this processor, as Linux names them; empty where it is not known."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset()


def host_target() -> Target:
    """This machine, as kernels are compiled for it.

    >>> host_target().name
    'CPU'
    """
    vector_bytes, registers = vector_unit(platform.machine(), processor_features())
    has_fma = platform.machine() in ("aarch64", "arm64", "ARM64") or "fma" in processor_features()
    capabilities = Capabilities(
        ops=BASIC_OPS | {ops.SHUFFLE} | ({ops.FMA} if has_fma else set()),
        dtypes=_STORED,
        arithmetic=_COMPUTED,
        vector_bytes=vector_bytes,
        vector_registers=registers,
        threads=available_threads(),
        index_bits=(64, 32),
        cache_bytes=cache_sizes(),
        dots=dot_kinds(platform.machine(), processor_features()) if vector_bytes == 64 else (),
    )
    return Target(NAME, platform.machine(), capabilities, f"{fingerprint()}-{renderer_fingerprint()}")


def vector_unit(machine: str, features: frozenset[str]) -> tuple[int, int]:
    """(bytes of a vector register, how many there are) of a processor.

    >>> vector_unit("x86_64", frozenset({"avx2"}))
    (32, 16)
    """
    if machine in ("x86_64", "AMD64"):
        if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= features:
            return 64, 32
        # Where the features cannot be read, assume what every processor sold in the last decade has.
        return (32, 16) if "avx2" in features or not features else (16, 16)
    return (16, 32) if machine in ("aarch64", "arm64", "ARM64") else (16, 16)


def dot_kinds(machine: str, features: frozenset[str]) -> tuple[Dot, ...]:
    """Which sums of products in groups are instructions on 64-byte registers.

    >>> [dot.size for dot in dot_kinds("x86_64", frozenset({"avx512_vnni"}))]
    [4]
    """
    if machine not in ("x86_64", "AMD64"):
        return ()
    kinds = {
        "avx512_bf16": Dot(dtypes.float32, dtypes.bfloat16, dtypes.bfloat16, 2),
        "avx512_vnni": Dot(dtypes.int32, dtypes.uint8, dtypes.int8, 4),
    }
    return tuple([kind for feature, kind in kinds.items() if feature in features])


@functools.cache
def cache_sizes() -> tuple[int, ...]:
    """Bytes of the data caches that one core sees, nearest first."""
    if sys.platform != "linux":
        return (32 << 10, 1 << 20)
    found: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError, ValueError, KeyError):  # a virtual machine may hide any of them
            if (index / "type").read_text(encoding="ascii").strip() == "Instruction":
                continue
            text = (index / "size").read_text(encoding="ascii").strip()
            unit = {"K": 1 << 10, "M": 1 << 20}[text[-1]]
            found[int((index / "level").read_text(encoding="ascii"))] = int(text[:-1]) * unit
    return tuple(found[level] for level in sorted(found)) or (32 << 10, 1 << 20)
