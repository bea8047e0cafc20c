"""Movement that is worked out once for a shape, and followed: the same nodes as by going there on foot."""

from __future__ import annotations

import pytest
from tinycore_frontend_tensor import graph

from tinycore import Tensor, Variable
from tinycore.errors import ShapeError
from tinycore.ir import UOp, dtypes, ops

SHAPE = (4, 6)


def _buffer(*shape: int) -> UOp:
    return UOp(ops.BUFFER, dtypes.float32, (), (1, shape, "X"))


MOVES = {
    "nothing": lambda node: node,
    "back and forth": lambda node: graph.reshape(graph.reshape(node, (24,)), SHAPE),
    "reshape": lambda node: graph.shrink(graph.reshape(node, (2, 2, 6)), ((0, 1), (0, 2), (0, 6))),
    "permute": lambda node: graph.permute(graph.pad(graph.permute(node, (1, 0)), ((1, 0), (0, 2))), (1, 0)),
    "expand": lambda node: graph.expand(graph.reshape(node, (1, *SHAPE)), (3, *SHAPE)),
    "flip": lambda node: graph.reshape(graph.flip(node, (1,)), (3, 8)),
}
SOURCES = {
    "stored": lambda: _buffer(*SHAPE),
    "computed": lambda: _buffer(*SHAPE).alu(ops.NEG),
    "constant": lambda: UOp.const(dtypes.float32, 2.0, SHAPE),
    "reshaped": lambda: graph.reshape(_buffer(3, 8), SHAPE),
    "turned": lambda: graph.permute(_buffer(6, 4), (1, 0)),
    "reshaped from where it goes": lambda: graph.reshape(_buffer(2, 2, 6), SHAPE),
}


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("source", SOURCES)
def test_following_steps_gives_the_same_nodes(source, move):
    node = SOURCES[source]()
    assert graph.follow(node, graph.steps_of(SHAPE, MOVES[move])) is MOVES[move](node)


def test_convolutions_of_one_kind_are_equal_whatever_their_arguments_are_written_as():
    x, weight = Tensor.empty(2, 4, 9, 8), Tensor.empty(6, 2, 3, 3)
    one = x.conv2d(weight, stride=2, padding=1, dilation=1, groups=2)
    two = x.conv2d(weight, stride=[2, 2], padding=(1, 1), dilation=[1, 1], groups=2)
    assert one.uop is two.uop
    assert one.uop is not x.conv2d(weight, stride=2, padding=2, groups=2).uop
    assert one.uop is not x.conv2d(weight, stride=(2, 1), padding=1, groups=2).uop


def test_negative_padding_cuts():
    x, weight = Tensor.empty(1, 2, 9, 8), Tensor.empty(3, 2, 3, 3)
    assert x.conv2d(weight, padding=(-1, 1)).uop is x[:, :, 1:8].conv2d(weight, padding=(0, 1)).uop
    with pytest.raises(ShapeError, match="does not fit -1 elements"):
        x.conv2d(weight, padding=-5)


def test_symbolic_channels_are_an_error_with_a_name():
    channels = Variable("c", 1, 4).bind(2)
    x = Tensor.empty(1, 4, 5, 5).shrink([None, (0, channels), None, None])
    with pytest.raises(ShapeError, match="symbolic size c"):
        x.conv2d(Tensor.empty(3, 2, 3, 3))
