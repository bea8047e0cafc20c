from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tinycore_backend_nv.device import open_device
from tinycore_backend_nv.driver import Driver

from tinycore.runtime.device import Signature

_spec = importlib.util.spec_from_file_location("fake_cuda", Path(__file__).with_name("fake_cuda.py"))
fake_cuda = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_cuda)


@pytest.fixture
def cuda():
    """A pretended driver."""
    return fake_cuda.FakeCuda()


@pytest.fixture
def make_cuda():
    """Pretended drivers of other cards."""
    return fake_cuda.FakeCuda


@pytest.fixture
def device(cuda):
    """A GPU behind the pretended driver."""
    device = open_device(driver=Driver(cuda))
    device.fake = cuda
    yield device
    device.close()
    assert not set(cuda.alive()) - {"function"}, "something was not given back"


@pytest.fixture
def load(device):
    """Compile and load a program."""

    def load(program):
        device.fake.programs[program.name] = program
        signature = Signature(program.name, len(program.parameters), len(program.variables), program.group)
        return device.load(device.compile(device.render(program), program.name), signature)

    return load
