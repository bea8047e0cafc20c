from __future__ import annotations

import pytest

from tinycore.config import override
from tinycore.plugin.check import check
from tinycore.plugin.discover import discover
from tinycore.plugin.doctor import examine
from tinycore.plugin.probe import probe
from tinycore.plugin.registry import installed

SIM = """
api = "1.0"
[[backend]]
name = "SIM"
entry = "PACKAGE:open_device"
"""
WORKING = """
class Target: architecture = "v1"
class Device:
    target = Target()
    def close(self): ...
def open_device(): return Device()
"""


def plugin_named(name):
    return next(plugin for plugin in discover() if plugin.id == name)


def problems(name):
    return list(check(plugin_named(name), installed()))


# check


def test_a_good_plugin_has_no_problems_and_is_not_imported(site):
    site.add("sim", SIM, files={"__init__.py": "raise RuntimeError\ndef open_device(): ..."})
    assert problems("sim") == []
    assert site.imported() == set()


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def open_devise(): ...", "has no 'open_device'; did you mean 'open_devise'?"),
        ("def f():\n    open_device = 1", "has no 'open_device'"),
        ("def open_device(:", "does not parse"),
    ],
)
def test_entries_must_exist(site, code, problem):
    site.add("sim", SIM, files={"__init__.py": code})
    (found,) = problems("sim")
    assert problem in found


@pytest.mark.parametrize(
    "code",
    [
        "from elsewhere import open_device",
        "from elsewhere import x as open_device",
        "open_device = 1",
        "if True:\n    open_device: int = 1",
        "from elsewhere import *",
        "def __getattr__(name): ...",
        "class open_device: ...",
    ],
)
def test_every_way_to_define_a_name_counts(site, code):
    site.add("sim", SIM, files={"__init__.py": code})
    assert problems("sim") == []


def test_modules_of_entries_must_exist(site):
    site.add("sim", SIM.replace("PACKAGE:", "PACKAGE.deep.device:"), files={"deep/__init__.py": ""})
    assert problems("sim") == ["backend 'SIM': there is no module 'site_sim.deep.device'"]


def test_clashes_with_other_plugins_are_told(site):
    for name in ("one", "two"):
        site.add(name, SIM, files={"__init__.py": "def open_device(): ..."})
    (found,) = problems("one")
    assert "'SIM' in backends is claimed by plugin 'two' (thirdparty-two 0.3.0) too" in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("group mine(fixpoint) { one: x * 1 => x }", None),
        ("group mine(fixpoint) { one: x * 1 => y }", "y"),
        ("group mine(fixpoint) { one: x * => x }", "one: x * => x"),
    ],
)
def test_rule_files_are_parsed_and_checked(site, text, problem):
    manifest = 'api = "1.0"\n[[rules]]\nfile = "rules/mine.rules"\nstage = "late"'
    site.add("ruled", manifest, files={"__init__.py": "1/0", "rules/mine.rules": text})
    found = problems("ruled")
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]
    assert site.imported() == set()


def test_a_plugin_without_a_manifest_is_told_to_write_one(site):
    site.add("bare", None)
    assert "it has no tinycore.toml" in problems("bare")[0]


# probe


def test_a_working_plugin(site):
    site.add("sim", SIM, files={"__init__.py": "print('noise')\n" + WORKING})
    found = probe(plugin_named("sim"))
    assert (found.error, found.devices, found.targets) == (None, {"SIM": None}, {"SIM": "v1"})
    assert found.import_ms > 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("import os; os._exit(5)", "its process ended with status 5"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed with SIGSEGV"),
    ],
)
def test_a_plugin_that_cannot_be_imported(site, code, words):
    site.add("sim", SIM, files={"__init__.py": code})
    assert words in (probe(plugin_named("sim")).error or "")


def test_a_plugin_that_hangs(site):
    site.add("sim", SIM, files={"__init__.py": "import time; time.sleep(60)"})
    assert probe(plugin_named("sim"), timeout=1.5).error == "it did not answer within 1.5 s"


def test_a_device_that_does_not_open_says_where(site):
    site.add("sim", SIM, files={"__init__.py": "\n\ndef open_device(): raise OSError('no libfoo.so')"})
    found = probe(plugin_named("sim"))
    assert found.error is None
    assert "OSError: no libfoo.so" in found.devices["SIM"]
    assert "site_sim/__init__.py:3" in found.devices["SIM"]


# doctor


def findings():
    return [(each.level, f"{each.what} {each.where} {each.hint}") for each in examine(timeout=30)]


def said(level, words):
    return any(each == level and words in text for each, text in findings())


def test_doctor_sees_the_machine_and_every_plugin(site):
    site.add("sim", SIM, files={"__init__.py": WORKING})
    site.add("bad", SIM.replace("SIM", "BAD"), files={"__init__.py": "1/0"})
    site.add("old", 'api = "0.1"')
    site.add("off", SIM.replace("SIM", "OFF"))
    hook = "from tinycore.plugin import Finding, hookimpl\n"
    hook += "@hookimpl\ndef tinycore_doctor():\n    return [Finding('warning', 'old driver')]"
    site.add(
        "hook",
        'api = "1.0"\n[hooks]\nmodule = "PACKAGE.h"\nnames = ["tinycore_doctor"]',
        files={"h.py": hook},
    )
    with override(disabled_plugins=("off",)):
        found = findings()
    for level, words in [
        ("ok", "Python 3."),
        ("ok", "numpy "),
        ("ok", "kernel cache"),
        ("ok", "device SIM opens v1"),
        ("error", "ZeroDivisionError"),
        ("error", "plugin API 0.1"),
        ("ok", "disabled by the user  tinycore plugins enable off"),
        ("warning", "old driver"),
    ]:
        assert any(each == level and words in text for each, text in found), (level, words, found)


def test_doctor_sees_an_unsafe_cache(site, tmp_path):
    unsafe = tmp_path / "everybody"
    unsafe.mkdir()
    unsafe.chmod(0o777)
    with override(cache_directory=unsafe):
        assert said("error", "can be written by, others")
    with override(cache_directory=tmp_path / "file" / "x"):
        (tmp_path / "file").write_text("")
        assert said("warning", "cannot be written")
    with override(cache=False):
        assert said("warning", "the kernel cache is off")


def test_doctor_sees_clashes_and_contradictions(site):
    for name in ("one", "two"):
        site.add(name, SIM, files={"__init__.py": WORKING})
    assert said("warning", "device 'SIM' is claimed by")
    a_pass = 'api = "1.0"\n[[pass]]\nid = "{}"\nstage = "late"\nentry = "PACKAGE:run"\nbefore = ["{}"]'
    site.add("x", a_pass.format("x", "y"), files={"__init__.py": "def run(): ..."})
    site.add("y", a_pass.format("y", "x"), files={"__init__.py": "def run(): ..."})
    assert said("error", "x -> y -> x")


def test_doctor_survives_damaged_settings(site, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "plugins.toml").write_text("disabled = ")
    assert said("error", "cannot be read")
