"""The types of what `tinycore` offers; names that plugins export are typed by their plugin."""

from tinycore_frontend_tensor import Device as Device
from tinycore_frontend_tensor import Tensor as Tensor
from tinycore_frontend_tensor import Variable as Variable
from tinycore_frontend_tensor import dtypes as dtypes
from tinycore_frontend_tensor import jit as jit
from tinycore_frontend_tensor import nn as nn
from tinycore_tools_explain import explain as explain

from tinycore.config import override as override
from tinycore.rules import extra_rules as extra_rules

__version__: str

def __dir__() -> list[str]: ...
