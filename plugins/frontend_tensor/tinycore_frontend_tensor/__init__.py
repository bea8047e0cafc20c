"""Tensor, autograd, nn, optim and jit.

>>> from tinycore import Tensor
>>> (Tensor([[1.0, 2.0]]) @ Tensor([[3.0], [4.0]])).tolist()
[[11.0]]
"""

from tinycore.ir import dtypes
from tinycore_frontend_tensor import nn
from tinycore_frontend_tensor.device import Device
from tinycore_frontend_tensor.jit import jit
from tinycore_frontend_tensor.symbolic import Dimension, Variable
from tinycore_frontend_tensor.tensor import Tensor

__all__ = ["Device", "Dimension", "Tensor", "Variable", "dtypes", "jit", "nn"]
