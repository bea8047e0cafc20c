from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from tinycore.errors import PluginError
from tinycore.runtime import environment as module
from tinycore.runtime.environment import STAGES, Environment, PassSpec, environment, reset, set_loader


@pytest.fixture
def loader():
    """Lets a test install a loader, and puts the real one back."""
    before = module._loader
    yield set_loader
    set_loader(before)


def test_stages_are_the_doors_of_the_pipeline():
    assert STAGES == ("tensor", "schedule", "kernel", "tile", "late", "program")


def test_the_loader_runs_once_whatever_the_number_of_threads(loader):
    calls = []

    def slow():
        calls.append(1)
        time.sleep(0.05)
        return Environment(versions=(("x", "1"),))

    loader(slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(environment())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 4 and all(each is found[0] for each in found)


def test_a_failed_loader_is_asked_again(loader):
    answers = iter([PluginError("contradiction"), Environment()])

    def sometimes():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    loader(sometimes)
    with pytest.raises(PluginError, match="contradiction"):
        environment()
    assert environment() == Environment()


def test_reset_forgets(loader):
    loader(Environment)
    first = environment()
    reset()
    assert environment() is not first


def test_asking_while_loading_is_an_error_not_a_hang(loader):
    loader(lambda: environment())
    with pytest.raises(PluginError, match="while it was being imported"):
        environment()


def test_nothing_can_be_changed():
    empty = Environment()
    with pytest.raises(dataclasses.FrozenInstanceError):
        empty.versions = ()
    with pytest.raises(TypeError):
        empty.passes["late"] = (PassSpec("x", "late", print),)
    assert empty.passes_at("late") == () and empty.rules_at("late") == ()
