"""What users do wrong gives one error of tinycore that says what, and what to do; no insides of the compiler."""

from __future__ import annotations

import traceback

import numpy as np
import pytest
from graphs import assign, compilations, data, expand, matmul, need, node, reshape, total

from tinycore import Tensor, Variable
from tinycore.errors import BindingError, DeviceError, DTypeError, ShapeError, TinycoreError
from tinycore.ir import UOp, dtypes, ops
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, to_host

REFERENCE = "INTERPRETER"
N = UOp.variable("n", 2, 8, 2)
INSIDES = ("/codegen/", "/passes/", "/interpret/")


def fails(error, function, match):
    """The function raises it, before any part of the compiler has begun to work."""
    with pytest.raises(error, match=match) as caught:
        function()
    assert isinstance(caught.value, TinycoreError)
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not [name for name in files if any(part in name for part in INSIDES)]
    return caught.value


# --- tensors ------------------------------------------------------------------------------------------------


def test_shapes():
    x, y = Tensor.ones(3, 4), Tensor.ones(5, 6)
    fails(ShapeError, lambda: x + y, "3.*5|broadcast")
    fails(ShapeError, lambda: x @ y, "4.*5|matmul|inner")
    fails(ShapeError, lambda: x.reshape(5, 5), "12|reshape")
    fails(ShapeError, lambda: x.expand(3, 5), "expand|4")
    fails((ShapeError, IndexError), lambda: x.sum(7), "axis|7")
    fails(ShapeError, lambda: x.permute(0, 0), "permut|axes")


def test_dtypes():
    fails(DTypeError, lambda: Tensor(np.array(["a", "b"])), "dtype|<U1|str")
    fails(DTypeError, lambda: Tensor.ones(3, dtype="float31"), "float31")
    fails(DTypeError, lambda: Tensor.ones(3) << 2, "float32|shift|<<")


def test_devices():
    need("CPU")
    error = fails(
        TinycoreError,
        lambda: Tensor.ones(3, device="CPU") + Tensor.ones(3, device=REFERENCE).realize(),
        "CPU.*INTERPRETER|INTERPRETER.*CPU",
    )
    assert ".to(" in error.hint
    fails(TinycoreError, lambda: Tensor.ones(3, device="CPX").realize(), "unknown device 'CPX'")


def test_symbolic_sizes():
    n = Variable("n", 1, 8)
    fails(BindingError, lambda: n.bind(9), "n")
    one = Tensor(np.ones((3,), np.float32), shape=(n.bind(3),))
    other = Tensor(np.ones((5,), np.float32), shape=(n.bind(5),))
    fails(BindingError, lambda: (one + other).realize(), "n")
    fails(ShapeError, lambda: Tensor(np.ones((4,), np.float32), shape=(n.bind(3),)), r"4|\(3,\)")


# --- the runtime below them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [REFERENCE, "CPU", "CL"])
def test_an_unbound_dimension(device):
    need(device)
    x = from_host(data((4, 3)), device, shape=(N, 3), bindings={N: 4})
    error = fails(BindingError, lambda: realize([x + 1.0]), "'n' has no value")
    assert "bind" in error.hint
    fails(BindingError, lambda: realize([total(x, 0, 1)]), "'n' has no value")
    fails(BindingError, lambda: to_host(x), "'n' has no value")
    fails(BindingError, lambda: realize([expand(reshape(total(x, 0, 1)), N)]), "'n' has no value")


@pytest.mark.parametrize("device", [REFERENCE, "CPU"])
def test_nothing_runs_when_a_value_is_missing(device):
    need(device)
    x, y = (
        from_host(data((4, 3)), device, shape=(N, 3), bindings={N: 4}),
        from_host(np.zeros(5, np.int32), device),
    )
    with compilations() as names:
        fails(BindingError, lambda: realize([assign(y, y + 1), total(x, 0) * 2.5]), "'n' has no value")
    assert names == []
    np.testing.assert_array_equal(to_host(y), np.zeros(5))


@pytest.mark.parametrize("value", [0, 3, 10, -2])
def test_a_value_that_is_not_allowed(value):
    x = from_host(data((4, 3)), REFERENCE, shape=(N, 3), bindings={N: 4})
    error = fails(BindingError, lambda: realize([x + 1.0], {N: value}), f"n = {value}")
    assert "a multiple of 2" in error.hint
    fails(BindingError, lambda: to_host(x, {N: value}), f"n = {value}")
    fails(
        BindingError,
        lambda: from_host(np.zeros((max(0, value), 3)), REFERENCE, shape=(N, 3), bindings={N: value}),
        f"n = {value}",
    )


def test_an_array_of_another_shape():
    fails(ShapeError, lambda: from_host(data((4, 3)), REFERENCE, shape=(N, 3), bindings={N: 6}), r"\(4, 3\)")
    fails(ShapeError, lambda: from_host(data((4, 3)), REFERENCE, shape=(3, 4)), r"\(4, 3\)")


def test_arrays_without_a_dtype():
    fails(DTypeError, lambda: from_host(np.array([object()]), REFERENCE), "object")
    fails(DTypeError, lambda: from_host(np.zeros(3, "complex64"), REFERENCE), "complex64")


def test_two_devices_in_one_graph():
    need("CPU")
    x, y = from_host(data((3,)), "CPU"), from_host(data((3,)), REFERENCE)
    error = fails(DeviceError, lambda: realize([x + y]), "CPU and INTERPRETER")
    assert ".to(" in error.hint
    fails(DeviceError, lambda: realize([assign(x, y * 2.0)]), "CPU and INTERPRETER")


def test_values_that_are_not_stored():
    x = from_host(data((3, 4)), REFERENCE)
    error = fails(TinycoreError, lambda: to_host(x + 1.0), "only stored values")
    assert "realize" in error.hint
    fails(TinycoreError, lambda: to_host(matmul(x, reshape(x, 4, 3))), "only stored values")


def test_a_device_that_does_not_exist():
    fails(TinycoreError, lambda: realize([node((3,), device="NOWHERE") + 1.0]), "NOWHERE|no memory")
    fails(
        TinycoreError, lambda: realize([UOp.const(dtypes.int32, 1, (3,))], device="NOWHERE"), "unknown device"
    )


def test_a_copy_to_a_device_that_does_not_exist():
    x = from_host(data((3,)), REFERENCE)
    fails(
        TinycoreError, lambda: realize([UOp(ops.COPY, x.dtype, (x,), "NOWHERE")]), "unknown device 'NOWHERE'"
    )


def test_errors_leave_everything_usable():
    x = from_host(np.arange(3, dtype=np.int32), REFERENCE)
    with pytest.raises(TinycoreError):
        realize([UOp(ops.COPY, x.dtype, (x,), "NOWHERE")])
    (result,) = realize([x + 1])
    np.testing.assert_array_equal(to_host(result), [1, 2, 3])
