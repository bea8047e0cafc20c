"""Lists in and out without numpy: the same elements as with it."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from tinycore_frontend_tensor import host_data
from tinycore_frontend_tensor.conversion import _as_array, convert

from tinycore import Tensor
from tinycore.errors import ShapeError
from tinycore.ir import dtypes

NUMBERS = [0, 1, -1, 255, 2**31, -(2**53), 2**53 + 1, 2**63, 1.5, -0.0, 1e300, float("inf"), True, False]
ASKED = [None, *[dtypes.by_name(name) for name in ("bool", "int8", "uint64", "int64", "float32", "float64")]]


def lists(generator: random.Random, depth: int) -> object:
    if depth == 0:
        kind = generator.choice([bool, int, float, object])
        pool = [number for number in NUMBERS if kind is object or type(number) is kind]
        return [generator.choice(pool) for _ in range(3)]
    return [lists(generator, depth - 1) for _ in range(2)]


@pytest.mark.parametrize("seed", range(200))
def test_packed_lists_are_what_numpy_makes_of_them(seed):
    generator = random.Random(seed)
    data, asked = lists(generator, generator.randrange(3)), generator.choice(ASKED)
    found = host_data.packed(data, asked)
    if found is None:
        return
    content, dtype, shape = found
    array = _as_array(data)
    source = dtypes.of_numpy(array.dtype)
    wanted = asked or {dtypes.float64: dtypes.float32}.get(source, source)
    assert (dtype, shape) == (wanted, array.shape)
    with np.errstate(over="ignore"):
        assert bytes(content) == convert(array, source, wanted).tobytes()


@pytest.mark.parametrize("name", ["bool", "int8", "uint16", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)])
def test_nested_lists_are_what_numpy_reads(name, shape):
    dtype = dtypes.by_name(name)
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype.numpy)
    found = host_data.nested(bytearray(array.tobytes()), dtype, shape)
    assert found == array.tolist()
    assert type(np.ravel(np.array(found, object))[0]) is type(np.ravel(array.astype(object))[0])


@pytest.mark.parametrize("data", [[[1], [2, 3]], [[1], 2], [1, [2]]])
def test_ragged_lists_are_refused(data):
    with pytest.raises(ShapeError):
        Tensor(data)


def test_lists_without_elements_keep_their_shape():
    assert Tensor([[], []]).shape == (2, 0)
    assert Tensor([]).tolist() == []


def test_a_small_program_imports_neither_numpy_nor_a_compiler(tmp_path):
    """With a warm cache; the first process fills it."""
    program = (
        "import sys\nfrom tinycore import Tensor\n"
        "assert (Tensor([1, 2, 3]) + 1).tolist() == [2, 3, 4]\nassert Tensor([2.5]).sum().item() == 2.5\n"
        "print(*[name for name in ('numpy', 'lark', 'llvmlite', 'difflib') if name in sys.modules])"
    )
    settings = {**os.environ, "TINYCORE_CACHE_DIR": str(tmp_path), "TINYCORE_CACHE": "1"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program], env=settings, capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == []
