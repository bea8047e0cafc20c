from __future__ import annotations

import dataclasses

import pytest

from tinycore.errors import PluginError
from tinycore.plugin.hookspecs import HookSpecs
from tinycore.plugin.manifest import _SCHEMA, HOOK_NAMES, parse_manifest, provides, read_manifest

FULL = """
api = "1.0"
uop_spec = 1
[exports]
Tensor = "pkg:Tensor"
nn = "pkg.nn"
[[backend]]
name = "SIM"
priority = 7
entry = "pkg.device:open_device"
compile_target = "pkg.device:target"
[backend.capabilities]
dtypes = ["float32"]
gather = false
[[rules]]
file = "rules/sim.rules"
stage = "late"
[[pass]]
id = "sim.fold"
stage = "kernel"
entry = "pkg.passes:fold"
before = ["tile"]
requires = ["x"]
optional = false
[[frontend]]
name = "csv"
entry = "pkg.csv:load"
suffixes = [".csv"]
[hooks]
module = "pkg.hooks"
names = ["tinycore_doctor"]
"""


def test_everything_a_manifest_can_say():
    manifest = parse_manifest(FULL, "here")
    assert manifest.api == (1, 0) and manifest.uop_spec == 1
    assert manifest.exports == {"Tensor": "pkg:Tensor", "nn": "pkg.nn"}
    (backend,) = manifest.backends
    assert (backend.name, backend.priority, backend.entry) == ("SIM", 7, "pkg.device:open_device")
    assert backend.capabilities == {"dtypes": ("float32",), "gather": False}
    assert manifest.rules[0].group == "sim"
    (a_pass,) = manifest.passes
    assert (a_pass.before, a_pass.after, a_pass.requires, a_pass.optional) == (("tile",), (), ("x",), False)
    assert manifest.frontends[0].suffixes == (".csv",)
    assert manifest.hooks and manifest.hooks.names == ("tinycore_doctor",)
    assert provides(manifest)["backends"] == ("SIM",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.api = (2, 0)
    with pytest.raises(TypeError):
        manifest.exports["Tensor"] = "other:Tensor"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("api = \nx", ["not valid TOML", "line 1"]),
        ("", ["no 'api'", "add `api"]),
        ("api = 1.0", ["api = 1.0", "is not a version"]),
        ('api = "1"', ["is not a version"]),
        ('api = "1.0"\nuop_spec = true', ["uop_spec", "an integer"]),
        ('api = "1.0"\nexprts = 1', ["unknown key 'exprts'", "did you mean 'exports'?"]),
        ('api = "1.0"\nbackend = 3', ["backend = 3", "is not a list"]),
        ('api = "1.0"\nbackend = [1]', ["a list in which each item is a table"]),
        ('api = "1.0"\n[[backend]]\nname = "sim"', ["name = 'sim'", "upper case"]),
        ('api = "1.0"\n[[backend]]\nname = "SIM"', ["SIM can neither run nor compile"]),
        ('api = "1.0"\n[[backend]]\nname = "SIM"\nentry = "pkg"', ["entry = 'pkg'", "package.module:name"]),
        ('api = "1.0"\n[[backend]]\nname = "SIM"\nentry = "p:o"\npriorty = 1', ["'priorty'", "'priority'"]),
        (
            'api = "1.0"\n[[backend]]\nname = "S"\nentry = "p:o"\n[backend.capabilities]\ngathr = true',
            ["unknown key 'gathr' in [capabilities]", "'gather'"],
        ),
        ('api = "1.0"\n[[pass]]\nid = "x"\nstage = "kernle"\nentry = "p:o"', ["'kernle'", "'kernel'"]),
        ('api = "1.0"\n[[pass]]\nid = "x"\nstage = "late"', ["[pass] has no 'entry'"]),
        ('api = "1.0"\n[[rules]]\nfile = "../x.rules"\nstage = "late"', ["inside the package"]),
        ('api = "1.0"\n[[rules]]\nfile = "/etc/x.rules"\nstage = "late"', ["inside the package"]),
        ('api = "1.0"\n[[rules]]\nfile = "x.py"\nstage = "late"', [".rules file"]),
        ('api = "1.0"\n[exports]\n_x = "p:o"', ["not a public Python name"]),
        ('api = "1.0"\n[exports]\nx = "p o"', ["x = 'p o' in [exports]"]),
        ('api = "1.0"\n[hooks]\nmodule = "m"\nnames = ["tinycore_docter"]', ["'tinycore_doctor'"]),
        ('api = "1.0"\n[hooks]\nmodule = "m"', ["[hooks] has no 'names'"]),
        (
            'api = "1.0"\n[[backend]]\nname = "S"\nentry = "p:o"\n[[backend]]\nname = "S"\nentry = "p:o"',
            ["backend 'S' is declared twice"],
        ),
    ],
)
def test_mistakes_are_told_with_their_place(text, words):
    with pytest.raises(PluginError) as caught:
        parse_manifest(text, "plugins/foo/tinycore.toml")
    message = str(caught.value)
    assert "plugins/foo/tinycore.toml" in message
    for word in words:
        assert word in message


def test_an_unreadable_file_is_a_plugin_error(tmp_path):
    with pytest.raises(PluginError, match="cannot be read"):
        read_manifest(tmp_path / "tinycore.toml")
    (tmp_path / "tinycore.toml").write_bytes(b"api = '\xff'")
    with pytest.raises(PluginError, match="cannot be read"):
        read_manifest(tmp_path / "tinycore.toml")


def test_capability_keys_are_the_fields_of_capabilities():
    from tinycore.ir.target import Capabilities

    assert set(_SCHEMA["capabilities"]) == {field.name for field in dataclasses.fields(Capabilities)}


def test_hook_names_are_those_of_the_specifications():
    assert set(HOOK_NAMES) == {name for name in vars(HookSpecs) if name.startswith("tinycore_")}
