"""Trains a small convolutional network on handwritten digits, and shows what the compiler did.

    python examples/digits.py                    one run, about 99 % right on images it has never seen
    python examples/digits.py --seeds 3          three runs
    python examples/digits.py --steps 40 --json  a short run, machine-readable

Data: 1,797 images of 8x8 pixels, see data/ATTRIBUTION.md. The split is fixed: 1,437 to learn from, 360 held
out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tinycore import Device, Tensor, jit, nn

HERE = Path(__file__).resolve().parent
BATCH = 96
PEAK_RATE = 4e-3
HELD_OUT = 360
console = Console(stderr=True)


class Network:
    """Two convolutions, pooling, two linear layers: 20 thousand parameters."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.hidden = nn.Linear(32 * 2 * 2, 64)
        self.out = nn.Linear(64, 10)

    def __call__(self, images: Tensor) -> Tensor:
        x = self.norm1(self.first(images)).relu().max_pool2d(2)
        x = self.norm2(self.second(x)).relu().max_pool2d(2)
        return self.out(self.hidden(x.flatten(1)).relu().dropout(0.2))


def load_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(train images, train labels, held-out images, held-out labels); the split never changes."""
    with np.load(HERE / "data" / "digits.npz") as data:
        images = (data["images"].astype(np.float32) / 16)[:, None]
        labels = data["labels"].astype(np.int32)
    order = np.random.Generator(np.random.PCG64(1998)).permutation(len(images))
    held, train = order[:HELD_OUT], order[HELD_OUT:]
    return Tensor(images[train]), Tensor(labels[train]), Tensor(images[held]), Tensor(labels[held])


class Trainer:
    """One run: a network, its optimizer, and the captured functions."""

    def __init__(self, seed: int, steps: int) -> None:
        Tensor.manual_seed(seed)
        self.order = np.random.Generator(np.random.PCG64(seed))
        self.images, self.labels, self.held_images, self.held_labels = load_digits()
        self.network = Network()
        self.optimizer = nn.optim.AdamW(
            nn.state.get_parameters(self.network), lr=PEAK_RATE, weight_decay=0.02
        )
        self.steps = steps
        self.step = jit(self._step)
        self.correct = jit(self._correct)

    def _step(self, chosen: Tensor) -> Tensor:
        with Tensor.training():
            self.optimizer.zero_grad()
            loss = self.network(self.images[chosen]).cross_entropy(self.labels[chosen])
            loss.backward()
            self.optimizer.step()
        return loss

    def _correct(self) -> Tensor:
        with Tensor.no_grad():
            return (self.network(self.held_images).argmax(1) == self.held_labels).sum()

    def batches(self):
        """Endless shuffled index tensors of one size."""
        count = len(self.images)
        while True:
            order = self.order.permutation(count).astype(np.int32)
            for start in range(0, count - BATCH + 1, BATCH):
                yield Tensor(order[start : start + BATCH])

    def accuracy(self) -> float:
        return self.correct().item() / HELD_OUT

    def run(self, progress: Progress | None) -> list[float]:
        """Train; answers the loss of every step."""
        losses: list[float] = []
        bar = progress.add_task("training", total=self.steps, loss=math.nan) if progress else None
        for number, chosen in zip(range(self.steps), self.batches(), strict=False):
            self.optimizer.set_lr(PEAK_RATE * _schedule(number / self.steps))
            losses.append(self.step(chosen).item())
            if progress and bar is not None:
                progress.update(bar, advance=1, loss=losses[-1])
        return losses


def _schedule(done: float) -> float:
    """Warm up for a tenth of the time, then a half cosine."""
    return done / 0.1 if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))


def loss_curve(losses: list[float], width: int = 64, height: int = 10) -> str:
    """The losses as text, on a logarithmic scale."""
    cells = max(1, math.ceil(len(losses) / width))
    means = [float(np.mean(losses[k : k + cells])) for k in range(0, len(losses), cells)]
    logs = np.log(np.maximum(means, 1e-6))
    low, high = float(logs.min()), float(logs.max())
    rows = np.round((logs - low) / max(1e-9, high - low) * (height - 1)).astype(int)
    lines = []
    for level in range(height - 1, -1, -1):
        label = math.exp(low + (high - low) * level / (height - 1))
        lines.append(f"{label:9.4f} |" + "".join("*" if row == level else " " for row in rows))
    lines.append(" " * 10 + "+" + "-" * len(rows) + f"  {len(losses)} steps")
    return "\n".join(lines)


def save_picture(losses: list[float], path: Path) -> bool:
    """The loss curve as PNG; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(losses)
    axes.set(xlabel="step", ylabel="cross entropy", title="handwritten digits")
    figure.savefig(path, dpi=120)
    return True


def what_the_compiler_did(trainer: Trainer) -> dict[str, object]:
    """The kernels of one training step with their times, and the rules that made them."""
    from tinycore import rules
    from tinycore.codegen.compile import lower
    from tinycore.runtime.environment import environment
    from tinycore.runtime.realize import collect

    chosen = Tensor(np.arange(BATCH, dtype=np.int32))
    with collect() as rows:
        trainer.step(chosen)
    kernels = dict.fromkeys(
        kernel
        for recording in trainer.step.recordings
        for kernel in (call.kernel for call in recording.calls if hasattr(call, "kernel"))
    )
    fired: Counter[str] = Counter()
    target = Device[Device.DEFAULT].target
    if rows:  # the interpreter compiles nothing
        with rules.trace() as trace:
            for kernel in kernels:
                lower(kernel, target, dict(environment().passes))
        fired.update({info.name: count for info, count in trace.counts().items()})
    return {
        "device": Device.DEFAULT,
        "kernels": [
            {"name": r.name, "seconds": r.seconds, "operations": r.operations, "bytes": r.traffic}
            for r in rows
        ],
        "distinct_kernels": len(kernels),
        "rules": fired.most_common(),
        "plugins": [f"{name} {version}" for name, version in environment().versions],
    }


def show_report(report: dict) -> None:
    kernels = sorted(report["kernels"], key=lambda row: -row["seconds"])
    total = sum(row["seconds"] for row in kernels)
    table = Table(
        title=f"one training step on {report['device']}: {len(kernels)} kernels, {total * 1e3:.2f} ms"
    )
    for name in ("kernel", "us", "GFLOP/s", "GB/s"):
        table.add_column(name, justify="left" if name == "kernel" else "right")
    for row in kernels[:12]:
        seconds = max(row["seconds"], 1e-9)
        table.add_row(
            row["name"],
            f"{seconds * 1e6:.1f}",
            f"{row['operations'] / seconds / 1e9:.2f}",
            f"{row['bytes'] / seconds / 1e9:.2f}",
        )
    if len(kernels) > 12:
        rest = sum(row["seconds"] for row in kernels[12:])
        table.add_row(f"... {len(kernels) - 12} more", f"{rest * 1e6:.1f}", "", "")
    console.print(table)
    fired = report["rules"]
    console.print(
        f"{sum(count for _, count in fired)} rewrites by {len(fired)} rules; most often: "
        + ", ".join(f"{name} x{count}" for name, count in fired[:8])
    )
    console.print("plugins: " + ", ".join(report["plugins"]))


def train(seed: int, arguments: argparse.Namespace) -> tuple[dict, Trainer]:
    start = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )
    trainer = Trainer(seed, arguments.steps or arguments.epochs * (1437 // BATCH))
    if arguments.json:
        losses = trainer.run(None)
    else:
        with Progress(*columns, console=console) as progress:
            losses = trainer.run(progress)
    accuracy = trainer.accuracy()
    result = {
        "seed": seed,
        "steps": len(losses),
        "accuracy": accuracy,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": round(time.perf_counter() - start, 2),
        "losses": losses,
    }
    if not arguments.json:
        console.print(loss_curve(losses), highlight=False)
        console.print(
            f"seed {seed}: {accuracy:.2%} of {HELD_OUT} held-out images right, {result['seconds']:.1f} s"
        )
    return result, trainer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="training steps (default: --epochs)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training images (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, dropout and order (default 1)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="N runs, from --seed on")
    parser.add_argument(
        "--picture", type=Path, default=Path("digits-loss.png"), help="where the loss curve goes"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on the standard output, nothing else"
    )
    arguments = parser.parse_args()
    results, trainer = [], None
    try:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            result, trainer = train(seed, arguments)
            results.append(result)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    assert trainer is not None
    report = what_the_compiler_did(trainer)
    if arguments.json:
        print(json.dumps({"runs": results, "compiler": report}))
    else:
        show_report(report)
        if save_picture(results[-1]["losses"], arguments.picture):
            console.print(f"loss curve: {arguments.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
