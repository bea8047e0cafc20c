"""`tinycore compile` with backends made up for the test; what real ones make of it is tested with them."""

from __future__ import annotations

import json

import pytest

from tinycore.cli import main

MANIFEST = """
api = "1.0"
uop_spec = 1
[[backend]]
name = "SIM"
compile_target = "PACKAGE:compile_target"
[exports]
Tensor = "PACKAGE:Tensor"
"""
BACKEND = """
from dataclasses import dataclass
from tinycore.ir import Target, UOp

@dataclass(frozen=True)
class SimTarget(Target):
    def render(self, program): return f"source of {program.name}"
    def assembly(self, source): return f"assembly of {source}"
    def object_code(self, source, name): return source.encode() + b"\\x00"

def compile_target(architecture=None):
    return SimTarget("SIM", architecture or "default")

class Tensor:
    def __init__(self, uop): self.uop = uop
    @classmethod
    def of_node(cls, uop): return cls(uop)
    def __add__(self, other): return Tensor(self.uop + other)
"""


def run(*words):
    """Exit status; argparse leaves through SystemExit."""
    try:
        return main(words)
    except SystemExit as leaving:
        return leaving.code


@pytest.fixture
def sim(site):
    return site.add("sim", MANIFEST, files={"__init__.py": BACKEND})


def test_assembly_is_shown(sim, capsys):
    assert run("compile", "--target", "sim", "Input(4) + 1.0") == 0
    out = capsys.readouterr().out
    assert out.startswith("# e_4_") and "assembly of source of e_4_" in out


def test_json_and_the_architecture(sim, capsys):
    words = ("compile", "--target", "SIM:v7", "[Input(4) + 1.0, Input(2, 3) + 2.0]", "--emit", "ir", "--json")
    assert run(*words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["target"], report["architecture"]) == ("SIM", "v7")
    first, second = report["kernels"]
    assert first["name"].startswith("e_4_") and second["code"] == f"source of {second['name']}"
    assert first["buffers"] == ["float32", "float32"]


def test_equal_kernels_are_compiled_once(sim, capsys):
    assert run("compile", "--target", "SIM", "[Input(4) + 1.0, Input(4) + 1.0]", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["kernels"]) == 1


def test_objects_are_written(sim, capsys, tmp_path):
    assert run("compile", "--target", "SIM", "Input(4) + 1.0", "--emit", "object") == 2
    assert "--output FOLDER" in capsys.readouterr().err
    words = (
        "compile",
        "--target",
        "SIM",
        "Input(4) + 1.0",
        "--emit",
        "object",
        "--output",
        str(tmp_path / "out"),
    )
    assert run(*words) == 0
    (path,) = (tmp_path / "out").iterdir()
    assert path.suffix == ".o" and path.read_bytes().endswith(b"\0")
    assert str(path) in capsys.readouterr().out


def test_a_file_says_what_to_compile(sim, capsys, tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        "from tinycore import Tensor\nfrom tinycore.cli.expression import stored_input\n"
        "result = stored_input(8) + 1.0\n"
    )
    assert run("compile", "--target", "SIM", str(file)) == 0
    assert "# e_8_" in capsys.readouterr().out
    file.write_text("x = 1\n")
    assert run("compile", "--target", "SIM", str(file)) == 2
    assert "end it with `result = ...`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("Input(4", "SyntaxError"),
        ("Input(4) + missing", "missing"),
        ("Input(4).nothing()", "has no attribute 'nothing'"),
        ("3", "stands for int and not for a tensor"),
        ("[]", "stands for nothing"),
        ("Input(4)", "nothing to compute"),
        ("no_such_file.py", "there is no file"),
    ],
)
def test_what_cannot_be_compiled_is_refused(sim, capsys, expression, message):
    assert run("compile", "--target", "SIM", expression) in (1, 2)
    assert message in capsys.readouterr().err


def test_unknown_targets(sim, capsys):
    assert run("compile", "--target", "SIMM", "Input(4) + 1.0") == 1
    assert "did you mean 'SIM'?" in capsys.readouterr().err
    assert run("compile", "--target", "OTHER", "Input(4) + 1.0") == 1
    assert "pip install tinycore-backend-other" in capsys.readouterr().err
