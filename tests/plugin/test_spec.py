"""The documents of the plugin layer: their examples run, and they leave nothing out."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
import warnings
from pathlib import Path

import pytest

import tinycore.cli
import tinycore.plugin
from tinycore.plugin.hookspecs import HookSpecs
from tinycore.plugin.manifest import _SCHEMA, HOOK_NAMES, parse_manifest

SPEC = Path(__file__).parents[2] / "specs" / "plugins.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
BLOCKS = [(kind, code) for kind, code in BLOCK.findall(SPEC.read_text(encoding="utf-8"))]


def numbered(kind):
    found = [code for each, code in BLOCKS if each == kind]
    return [pytest.param(code, id=f"{kind}-{index}") for index, code in enumerate(found)]


@pytest.mark.parametrize("code", numbered("python"))
def test_python_examples_run(site, code):
    exec(compile(code, str(SPEC), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("text", numbered("toml"))
def test_toml_examples_parse(text):
    if text.startswith("# pyproject.toml"):
        import tomllib

        assert tomllib.loads(text)["project"]["entry-points"]["tinycore.plugins"]
    else:
        assert parse_manifest(text, "specs/plugins.md").api == (1, 0)


def test_no_example_is_left_out():
    assert {kind for kind, _ in BLOCKS} == {"python", "toml"}
    assert len(BLOCKS) >= 9


def test_every_key_and_every_hook_is_in_the_specification():
    text = SPEC.read_text(encoding="utf-8")
    keys = {key for table, known in _SCHEMA.items() if table != "capabilities" for key in known}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
    assert [name for name in HOOK_NAMES if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize("name", HOOK_NAMES)
def test_every_hook_has_an_example_that_is_accepted(site, name):
    function = getattr(HookSpecs, name)
    (example,) = [code for kind, code in BLOCK.findall(inspect.getdoc(function)) if kind == "python"]
    manifest = f'api = "1.0"\n[hooks]\nmodule = "PACKAGE.hooks"\nnames = ["{name}"]'
    site.add("example", manifest, files={"hooks.py": textwrap.dedent(example)})
    from tinycore.plugin.registry import registry

    arguments = {
        "tinycore_select_device": {"available": ("SIM",)},
        "tinycore_on_event": {"event": {"kind": "compile", "kernel": "k"}},
        "tinycore_add_commands": {"subparsers": __import__("argparse").ArgumentParser().add_subparsers()},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hooks = registry().hooks
        answers = list(hooks.call(name, **arguments.get(name, {})))
    assert hooks.failures == {}
    if name not in ("tinycore_on_event", "tinycore_add_commands", "tinycore_rules"):
        assert answers


def modules():
    for package in (tinycore.plugin, tinycore.cli):
        yield package.__name__
        for each in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if each.name.split(".")[-1] not in ("__main__", "explain", "compile"):
                yield each.name
    yield "tinycore.runtime.environment"


@pytest.mark.parametrize("name", list(modules()))
def test_examples_in_docstrings(site, name, capsys):
    with capsys.disabled():
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
