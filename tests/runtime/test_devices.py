"""Finding devices: names, defaults, what cannot be opened, and the device of last resort."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
from graphs import need

from tinycore.config import override
from tinycore.errors import BackendUnavailable, TinycoreError
from tinycore.runtime import devices
from tinycore.runtime.devices import canonical_name, default_device, device_names, get_device
from tinycore.runtime.environment import BackendSpec, Environment, environment, override_environment
from tinycore.runtime.reference import ReferenceDevice


class Fake(ReferenceDevice):
    """A device with a name of its own."""

    def __init__(self, name):
        super().__init__()
        self.name = name


def opening(name):
    return lambda: Fake(name)


def failing(error):
    def fail():
        raise error

    return fail


@pytest.fixture
def fresh(monkeypatch):
    """No device is open, none has failed, nothing was warned of."""
    for name, empty in (("_open", {}), ("_failed", {}), ("_warned", set())):
        monkeypatch.setattr(devices, name, empty)
    with override(device=None):
        yield


def backends(*specs):
    return override_environment(Environment(backends={spec.name: spec for spec in specs}))


def test_the_first_that_opens_is_the_default(fresh):
    with backends(BackendSpec("A", 9, opening("A")), BackendSpec("B", 5, opening("B"))):
        assert default_device() == "A"
        assert device_names() == ("A", "B", "INTERPRETER")


@pytest.mark.parametrize(
    "error", [BackendUnavailable("no driver"), OSError("libA.so: not found"), RuntimeError("x")]
)
def test_one_that_cannot_be_opened_is_skipped_with_one_warning(fresh, error):
    with backends(BackendSpec("A", 9, failing(error)), BackendSpec("B", 5, opening("B"))):
        with pytest.warns(UserWarning, match="device A is installed but cannot be used") as caught:
            assert default_device() == "B"
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert default_device() == "B"
        with pytest.raises(BackendUnavailable):
            get_device("A")


def test_compile_only_backends_are_no_default(fresh):
    with (
        backends(
            BackendSpec("A", 9, failing(BackendUnavailable("none here")), compile_only=True),
            BackendSpec("B", 5, opening("B")),
        ),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        assert default_device() == "B"


def test_without_any_backend_the_interpreter_says_so_once(fresh):
    with backends():
        with pytest.warns(UserWarning, match="interpreter, which is slow"):
            assert default_device() == "INTERPRETER"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert default_device() == "INTERPRETER"


def test_with_backends_that_all_fail(fresh):
    with backends(BackendSpec("A", 9, failing(BackendUnavailable("no driver")))):
        with pytest.warns(UserWarning) as caught:
            assert default_device() == "INTERPRETER"
        assert len(caught) == 2


def test_a_plugin_chooses(fresh):
    from dataclasses import replace

    known = {name: BackendSpec(name, 1, opening(name)) for name in "AB"}
    asked = []

    def select(names):
        asked.append(names)
        return "B"

    with override_environment(replace(environment(), backends=known, select_device=select)):
        assert default_device() == "B"
    assert asked == [("A", "B")]


def test_what_the_user_asks_for_wins(fresh):
    with (
        backends(BackendSpec("A", 9, opening("A")), BackendSpec("B", 5, opening("B"))),
        override(device="b:0"),
    ):
        assert default_device() == "B"


def test_a_device_is_opened_once(fresh):
    opened = []

    def once():
        opened.append(1)
        return Fake("A")

    with backends(BackendSpec("A", 9, once)):
        assert get_device("A") is get_device("a") is get_device("A:0")
    assert opened == [1]


def test_names():
    assert canonical_name("cpu") == "CPU"
    assert canonical_name("cpu:0") == "CPU"
    assert canonical_name("gpu:10") == "GPU:10"


@pytest.mark.parametrize(
    ("name", "hint"), [("CPUX", "CPU"), ("INTERPRETR", "INTERPRETER"), ("QUANTUM", "pip install")]
)
def test_unknown_devices(name, hint):
    with pytest.raises(BackendUnavailable, match="unknown device") as caught:
        get_device(name)
    assert hint in str(caught.value)


def test_an_instance_that_is_not_there():
    need("CPU")
    with pytest.raises(BackendUnavailable, match="instance"):
        get_device("CPU:7")


def test_the_interpreter_compiles_nothing():
    device = get_device("INTERPRETER")
    for call in (
        lambda: device.render(None),
        lambda: device.compile("", "x"),
        lambda: device.load(b"", None),
    ):
        with pytest.raises(TinycoreError):
            call()


# --- processes ----------------------------------------------------------------------------------------------


def python(code, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("DEV", "DEBUG")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


PROGRAM = """
import warnings
from tinycore import Tensor
x = Tensor([[1.0, 2.0], [3.0, 4.0]])
y = (x @ x).relu().sum()
print(y.device, y.item(), ((x + 1) * 2).tolist())
"""


def test_dev_selects():
    need("CPU")
    for name in ("INTERPRETER", "cpu"):
        result = python(PROGRAM, DEV=name)
        assert result.stdout.split()[:2] == [name.upper(), "54.0"], result.stderr


def test_dev_that_does_not_exist():
    result = python(PROGRAM, DEV="CPUX")
    assert result.returncode != 0
    assert "unknown device 'CPUX'" in result.stderr
    assert "CPU" in result.stderr.split("hint:")[1]


def test_no_backend_at_all():
    """Everything runs on the interpreter, and says so once."""
    code = PROGRAM + "print(x.softmax().sum().item(), Tensor.arange(4).sum().item())"
    result = python(code, TINYCORE_PLUGINS="frontend-tensor")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == "INTERPRETER"
    assert result.stderr.count("which is slow") == 1


def test_without_the_tile_pass():
    need("CPU")
    result = python(PROGRAM, TINYCORE_DISABLE="pass-tile", DEV="CPU", TINYCORE_CACHE="0")
    assert result.stdout.split()[:2] == ["CPU", "54.0"], result.stderr
