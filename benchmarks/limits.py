"""What the machine can do at most, measured: arithmetic in registers, and streams through memory.

    python -m benchmarks.limits [--json]

Both are loops in LLVM IR that do nothing else, run by the CPU backend on all its threads; the best of many
counts. A row's roofline is the time that it would take at these limits, whichever binds.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

ACCUMULATORS = 12
"""Enough independent chains to hide the latency of a multiply-add on any present processor."""
STREAM_BYTES = 256 << 20
SECONDS = 0.4
"""How long each limit is measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the machine in this run.

    Attributes
    ----------
    operations: float32 multiplications and additions a second, all threads.
    bandwidth: bytes a second, reading or copying, whichever is more, all threads.
    """

    operations: float
    bandwidth: float

    def seconds(self, operations: float, traffic: float, width: int = 4) -> float | None:
        """The least time for so many operations on elements of `width` bytes and so many bytes.

        None where nothing is known about the work.

        >>> Limits(1e9, 1e8).seconds(2e9, 1e8), Limits(1e9, 1e8).seconds(0, 0)
        (2.0, None)
        """
        found = max(operations / (self.operations * 4 / max(4, width)), traffic / self.bandwidth)
        return found or None


def _loop(name: str, prologue: str, phis: str, body: str, epilogue: str, step: int) -> str:
    """A function of the CPU ABI whose words are: memory, memory, elements a chunk (or iterations)."""
    return f"""
define void @{name}(ptr %words, i64 %chunk, i64 %thread) {{
entry:
  %a = load ptr, ptr %words
  %slot1 = getelementptr i64, ptr %words, i64 1
  %b = load ptr, ptr %slot1
  %slot2 = getelementptr i64, ptr %words, i64 2
  %count = load i64, ptr %slot2
  %base = mul i64 %chunk, %count
{prologue}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{phis}
{body}
  %next = add i64 %i, {step}
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
{epilogue}
  ret void
}}"""


def _sum_of(lanes: int, count: int) -> str:
    """Adds the accumulators up and stores them, so that no compiler drops them."""
    lines = [f"  %t0 = fadd <{lanes} x float> %n0, %n0"]
    lines += [f"  %t{k} = fadd <{lanes} x float> %t{k - 1}, %n{k}" for k in range(1, count)]
    place = f"  %place = getelementptr <{lanes} x float>, ptr %a, i64 %chunk"
    return "\n".join([*lines, place, f"  store <{lanes} x float> %t{count - 1}, ptr %place, align 4"])


def arithmetic_ir(lanes: int) -> str:
    """Multiply-adds on registers."""
    vector, numbers = f"<{lanes} x float>", range(ACCUMULATORS)
    phis = "\n".join(f"  %x{k} = phi {vector} [ zeroinitializer, %entry ], [ %n{k}, %loop ]" for k in numbers)
    call = f"call {vector} @llvm.fma.v{lanes}f32({vector}"
    body = "\n".join(f"  %n{k} = {call} %x{k}, {vector} %scale, {vector} %shift)" for k in numbers)
    prologue = f"""  %scale = load {vector}, ptr %b, align 4
  %second = getelementptr {vector}, ptr %b, i64 1
  %shift = load {vector}, ptr %second, align 4"""
    declare = f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})\n"
    return declare + _loop("arithmetic", prologue, phis, body, _sum_of(lanes, ACCUMULATORS), 1)


def read_ir(lanes: int) -> str:
    """Sums what it reads."""
    vector, numbers = f"<{lanes} x float>", range(8)
    phis = "\n".join(f"  %x{k} = phi {vector} [ zeroinitializer, %entry ], [ %n{k}, %loop ]" for k in numbers)
    lines = ["  %at = add i64 %base, %i"]
    for k in numbers:
        lines += [
            f"  %o{k} = add i64 %at, {k * lanes}",
            f"  %p{k} = getelementptr float, ptr %b, i64 %o{k}",
            f"  %v{k} = load {vector}, ptr %p{k}, align 4",
            f"  %n{k} = fadd {vector} %x{k}, %v{k}",
        ]
    return _loop("read", "", phis, "\n".join(lines), _sum_of(lanes, 8), 8 * lanes)


def copy_ir(lanes: int) -> str:
    """Copies past the caches."""
    vector, lines = f"<{lanes} x float>", ["  %at = add i64 %base, %i"]
    for k in range(8):
        lines += [
            f"  %o{k} = add i64 %at, {k * lanes}",
            f"  %p{k} = getelementptr float, ptr %b, i64 %o{k}",
            f"  %q{k} = getelementptr float, ptr %a, i64 %o{k}",
            f"  %v{k} = load {vector}, ptr %p{k}, align 4",
            f"  store {vector} %v{k}, ptr %q{k}, align {4 * lanes}, !nontemporal !0",
        ]
    return _loop("copy", "", "", "\n".join(lines), "", 8 * lanes) + "\n!0 = !{i32 1}"


def measure(seconds: float = SECONDS) -> Limits | None:
    """The limits of this machine now; None without the CPU backend."""
    try:
        from tinycore_backend_cpu.compile import compile_ir
        from tinycore_backend_cpu.device import CpuDevice
    except ImportError:
        return None
    from tinycore.runtime.device import Signature

    device = CpuDevice()
    threads = device.target.capabilities.threads
    lanes = max(4, device.target.capabilities.vector_bytes // 4)
    target, source = (device.allocator.allocate(STREAM_BYTES) for _ in range(2))
    device.allocator.copy_in(source, memoryview(bytes(STREAM_BYTES)))
    device.allocator.copy_in(target, memoryview(bytes(STREAM_BYTES)))

    def best(name: str, text: str, count: int, chunks: int) -> float:
        kernel = device.load(compile_ir(text), Signature(name, 2, 1))
        return _best(lambda: device.elapsed(kernel, (target, source), (count,), (chunks,)), seconds)

    elements = STREAM_BYTES // 4
    chunks = 4 * threads
    part = elements // chunks // (8 * lanes) * (8 * lanes)
    rounds = 200_000
    operations = 2.0 * rounds * ACCUMULATORS * lanes * threads
    moved = 4.0 * part * chunks
    found = Limits(
        operations / best("arithmetic", arithmetic_ir(lanes), rounds, threads),
        max(
            moved / best("read", read_ir(lanes), part, chunks),
            2 * moved / best("copy", copy_ir(lanes), part, chunks),
        ),
    )
    for memory in (target, source):
        device.allocator.free(memory, STREAM_BYTES)
    device.close()
    return found


def _best(run: Callable[[], float], seconds: float) -> float:
    """The least of what `run` answers, for about so many seconds."""
    found, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        found = min(found, run())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure()
    if found is None:
        print("the limits are measured with the CPU backend, which is not installed")
    elif options.json:
        print(json.dumps(asdict(found)))
    else:
        print(describe(found))


def describe(limits: Limits) -> str:
    """One line.

    >>> describe(Limits(4e11, 5e10))
    'limits of this machine now: 400 GFLOP/s in float32, 50.0 GB/s'
    """
    return (
        f"limits of this machine now: {limits.operations / 1e9:.0f} GFLOP/s in float32, "
        f"{limits.bandwidth / 1e9:.1f} GB/s"
    )


if __name__ == "__main__":
    main()
