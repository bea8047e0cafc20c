"""Layers as plain classes with ``__call__``; their tensors are found by walking attributes.

>>> from tinycore import Tensor, nn
>>> model = nn.Sequential(nn.Linear(4, 8), Tensor.relu, nn.Linear(8, 2))
>>> model(Tensor.ones(3, 4)).shape
(3, 2)
>>> sorted(nn.state.get_state_dict(model))
['layers.0.bias', 'layers.0.weight', 'layers.2.bias', 'layers.2.weight']
"""

from tinycore_frontend_tensor.nn import optim, state
from tinycore_frontend_tensor.nn.layers import (
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    MultiheadAttention,
    RMSNorm,
    Sequential,
)

__all__ = [
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "MultiheadAttention",
    "RMSNorm",
    "Sequential",
    "optim",
    "state",
]
