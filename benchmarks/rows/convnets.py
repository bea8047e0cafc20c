"""Networks of convolutions beside ResNet-50: blocks of two, and depthwise ones between pointwise ones."""

from __future__ import annotations

from typing import Any

from benchmarks.model import Row
from benchmarks.rows.data import normal
from benchmarks.rows.networks import INFERENCE


class BasicBlock:
    """Two 3x3 convolutions and the way around."""

    def __init__(self, kit: Any, inputs: int, width: int, stride: int) -> None:
        nn = kit.nn
        self.first = nn.Conv2d(inputs, width, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.around = nn.Conv2d(inputs, width, 1, stride=stride) if inputs != width else None


class ResNet18:
    """Its normalisations folded into the convolutions, as one does for inference."""

    def __init__(self, kit: Any) -> None:
        self.stem = kit.nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.blocks: list[BasicBlock] = []
        inputs = 64
        for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
            self.blocks.append(BasicBlock(kit, inputs, width, stride))
            inputs = width
        self.out = kit.nn.Linear(512, 1000)


def resnet18(kit: Any, model: ResNet18, images: Any) -> Any:
    """(batch, 3, 224, 224) to (batch, 1000)."""
    x = kit.max_pool(kit.relu(model.stem(images)), 3, 2, 1)
    for block in model.blocks:
        y = block.second(kit.relu(block.first(x)))
        x = kit.relu(y + (x if block.around is None else block.around(x)))
    return model.out(kit.mean_image(x))


class Inverted:
    """1x1 to many channels, depthwise 3x3, 1x1 to few; the way around where sizes allow it."""

    def __init__(self, kit: Any, inputs: int, times: int, width: int, stride: int) -> None:
        nn, inner = kit.nn, inputs * times
        self.adds = stride == 1 and inputs == width
        self.up = nn.Conv2d(inputs, inner, 1) if times > 1 else None
        self.across = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner)
        self.down = nn.Conv2d(inner, width, 1)


class MobileNet:
    """The shapes of MobileNetV2."""

    def __init__(self, kit: Any) -> None:
        self.stem = kit.nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.blocks: list[Inverted] = []
        inputs = 32
        sizes = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        for times, width, count, stride in sizes:
            for number in range(count):
                self.blocks.append(Inverted(kit, inputs, times, width, stride if number == 0 else 1))
                inputs = width
        self.last = kit.nn.Conv2d(320, 1280, 1)
        self.out = kit.nn.Linear(1280, 1000)


def mobilenet(kit: Any, model: MobileNet, images: Any) -> Any:
    """(batch, 3, 224, 224) to (batch, 1000)."""
    x = kit.relu(model.stem(images))
    for block in model.blocks:
        y = x if block.up is None else kit.relu(block.up(x))
        y = block.down(kit.relu(block.across(y)))
        x = x + y if block.adds else y
    return model.out(kit.mean_image(kit.relu(model.last(x))))


ROWS = (
    Row(
        "resnet18.1",
        "ResNet-18, batch 1",
        "more",
        normal((1, 3, 224, 224)),
        resnet18,
        model=ResNet18,
        kits=INFERENCE,
        tolerance=1e-3,
        operations=3.63e9,
        fresh=False,
    ),
    Row(
        "mobilenet.1",
        "MobileNetV2, batch 1",
        "more",
        normal((1, 3, 224, 224)),
        mobilenet,
        model=MobileNet,
        kits=INFERENCE,
        tolerance=1e-3,
        operations=0.6e9,
        fresh=False,
    ),
)
