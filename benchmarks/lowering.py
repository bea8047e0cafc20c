"""The Python side of compiling ResNet-50, batch 64: scheduling and lowering, beside the same stages of tinygrad.

    python benchmarks/lowering.py [--rounds 3] [--batch 64] [--json]

Both write the same network with their own `nn`, schedule it, and lower every distinct kernel to source text for
a CPU; no compiler and no kernel runs. Every round is a fresh process of each, one after the other, which has
lowered a small network before the clock starts. Seconds of processor time (what a busy machine disturbs
least) and of the clock; the ratio is of the best rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOAL = 8.0
STAGES = ("graph", "schedule", "lower")
Lowered = tuple[Any, list[tuple[float, float]], int]


def clocks() -> tuple[float, float]:
    """Seconds of this process, and of the clock."""
    return time.process_time(), time.perf_counter()


class _Small:
    """What warms both up: one block of each kind of layer."""

    def __init__(self, kit: Any) -> None:
        from benchmarks.rows.networks import Bottleneck

        self.stem, self.norm = kit.nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), kit.nn.BatchNorm2d(8)
        self.blocks = [Bottleneck(kit, 8, 4, 2), Bottleneck(kit, 16, 4, 1)]
        self.out = kit.nn.Linear(16, 10)


def tinycore() -> Callable[[bool, int], Lowered]:
    """Schedules and lowers with this project."""
    import numpy as np

    from benchmarks.kits import tinycore_kit
    from benchmarks.rows.networks import ResNet50, resnet50
    from benchmarks.runner import layers_of
    from tinycore import Tensor
    from tinycore.codegen.compile import lower
    from tinycore.runtime.devices import default_device, get_device
    from tinycore.runtime.joined import joined, schedule_doors
    from tinycore.schedule import KernelStep, make_schedule, number_buffers

    kit = tinycore_kit.make("tinycore")
    device = get_device(default_device())

    def stored(*shape: int) -> Tensor:
        return Tensor(np.zeros(shape, np.float32))

    def run(small: bool, batch: int) -> Lowered:
        model: Any = _Small(kit) if small else ResNet50(kit)
        for _, layer in layers_of(model):
            for name in ("weight", "bias", "running_mean", "running_var"):
                if getattr(layer, name, None) is not None:
                    setattr(layer, name, stored(*getattr(layer, name).shape))
        images = stored(batch, 3, 32 if small else 224, 32 if small else 224)
        times = [clocks()]
        with Tensor.no_grad():
            result = resnet50(kit, model, images)
        times.append(clocks())
        numbered, _ = number_buffers([result.uop])
        schedule = make_schedule(
            numbered,
            device.name,
            schedule_doors(),
            capabilities=lambda _: device.target.capabilities,
        )
        times.append(clocks())
        kernels = {step.kernel: None for step in schedule.steps if isinstance(step, KernelStep)}
        sources = [device.render(lower(kernel, device.target, joined().doors)) for kernel in kernels]
        times.append(clocks())
        return sources, times, len(schedule.steps)

    return run


def tinygrad() -> Callable[[bool, int], Lowered]:
    """Schedules and lowers with tinygrad; its NULL device has memory for nothing."""
    os.environ["DEV"] = "NULL"
    from tinygrad import Tensor, nn
    from tinygrad.codegen import to_program
    from tinygrad.device import Compiler
    from tinygrad.helpers import Target
    from tinygrad.renderer.cstyle import ClangRenderer
    from tinygrad.uop.ops import Ops

    from benchmarks.kits.tensor_kit import TensorKit
    from benchmarks.rows.networks import ResNet50, resnet50
    from benchmarks.runner import layers_of

    class Nothing(Compiler):  # type: ignore[misc]
        """Stands in for clang: what is timed ends with the source text."""

        def compile(self, src: str) -> bytes:
            return src.encode()

    class Renderer(ClangRenderer):  # type: ignore[misc]
        """The one of its CPU device, without the compiler."""

        def __init__(self) -> None:
            self.target, self.compiler = Target("CPU", "CLANG", "x86_64,native"), Nothing(None)

    class Kit(TensorKit):
        """Layers and tensors only: the whole kit wants clang."""

    Kit.Tensor = Tensor
    kit, renderer = Kit(), Renderer()
    kit.nn = SimpleNamespace(Linear=nn.Linear, Conv2d=nn.Conv2d, BatchNorm2d=nn.BatchNorm)

    def run(small: bool, batch: int) -> Lowered:
        model: Any = _Small(kit) if small else ResNet50(kit)
        for _, layer in layers_of(model):
            for name in ("weight", "bias", "running_mean", "running_var"):
                if getattr(layer, name, None) is not None:
                    setattr(layer, name, Tensor.empty(*getattr(layer, name).shape))
        images = Tensor.empty(batch, 3, 32 if small else 224, 32 if small else 224)
        times = [clocks()]
        result = resnet50(kit, model, images)
        times.append(clocks())
        calls = result.schedule_linear().src
        times.append(clocks())
        kernels = {call.src[0]: None for call in calls if call.src[0].op is Ops.SINK}
        sources = [to_program(kernel, renderer) for kernel in kernels]
        times.append(clocks())
        return sources, times, len(calls)

    return run


KITS = {"tinycore": tinycore, "tinygrad": tinygrad}


def child(name: str, batch: int) -> None:
    """One round of one library, in this process."""
    run = KITS[name]()
    run(True, 2)
    sources, times, calls = run(False, batch)
    spent = [
        [after - before for before, after in zip(a, b, strict=True)] for a, b in itertools.pairwise(times)
    ]
    print(
        json.dumps({"stages": dict(zip(STAGES, spent, strict=True)), "kernels": len(sources), "calls": calls})
    )


def measure(batch: int, rounds: int) -> dict[str, list[Any]]:
    """The rounds of both libraries, taking turns; a library that is not installed is left out."""
    found: dict[str, list[Any]] = {name: [] for name in KITS if find_spec(name)}
    for _ in range(rounds):
        for name, results in found.items():
            command = [sys.executable, __file__, "--child", name, "--batch", str(batch)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", choices=KITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.child:
        child(options.child, options.batch)
        return
    found = measure(options.batch, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'seconds of processor time':28}{'graph':>9}{'schedule':>9}{'lower':>9}{'all':>9}{'clock':>9}")
    best = {}
    for name, results in found.items():
        one = min(results, key=lambda result: sum(stage[0] for stage in result["stages"].values()))
        processor, clock = [[stage[k] for stage in one["stages"].values()] for k in (0, 1)]
        best[name] = sum(processor)
        what = f"{name}: {one['kernels']} kernels, {one['calls']} calls"
        print(f"{what:28}" + "".join(f"{each:9.3f}" for each in [*processor, sum(processor), sum(clock)]))
    if "tinygrad" not in best:
        print("tinygrad is not installed: nothing to compare with (pip install -r requirements-bench.txt)")
        return
    ratio = best["tinygrad"] / best["tinycore"]
    print(f"{ratio:.1f} times faster than tinygrad (goal {GOAL:.0f}){'' if ratio >= GOAL else '  missed'}")


if __name__ == "__main__":
    main()
