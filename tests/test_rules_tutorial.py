"""docs/rules-tutorial.md, done as it says: its files are written, its commands run, and their output is compared.

The last part builds a wheel of rules only, installs it into a folder of its own, and finds its rules in a kernel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tinycore.runtime.devices import default_device
from tinycore.runtime.reference import REFERENCE

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "rules-tutorial.md"
EXAMPLE = ROOT / "examples" / "rules_package"
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```", re.M | re.S)

pytest.importorskip("tinycore_tools_rules")


def blocks() -> list[tuple[str, str]]:
    """(the words after the fence, the text) of all blocks, in order."""
    return [(info.strip(), body) for info, body in BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))]


def matches(expected: str, found: str) -> bool:
    """Whether an output is what the tutorial shows; ``...`` stands for anything, on a line of its own for lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + "\n"
        for line in expected.splitlines()
    )
    return re.fullmatch(pattern, found) is not None


def commands(body: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block."""
    return [
        (command, "".join(f"{line}\n" for line in lines.splitlines()))
        for command, lines in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.M)
    ]


@pytest.mark.slow
@pytest.mark.skipif(default_device() == REFERENCE, reason="no device compiles here")
def test_the_tutorial_is_true(tmp_path: Path) -> None:
    package = tmp_path / "tinycore_rules_delight"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "README.md").write_text("# rules\n")
    site = tmp_path / "site"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PIP_TARGET": str(site),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's word for "with the build backend that is here"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TINYCORE_CACHE_DIR": str(tmp_path / "cache"),
    }
    ran = 0
    for info, body in blocks():
        kind, *names = info.split()
        if kind == "console":
            for command, expected in commands(body):
                done = subprocess.run(
                    command,
                    shell=True,
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                found = done.stdout + done.stderr
                assert matches(expected, found), f"$ {command}\n{found}\n--- expected\n{expected}"
                ran += 1
        elif names:
            (tmp_path / names[-1]).write_text(body)
    assert ran > 15
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    assert {"tinycore_rules_delight/delight.rules", "tinycore_rules_delight/tinycore.toml"} <= set(inside)
    assert any(re.fullmatch(r"tinycore_rules_delight/_compiled/delight_\w+\.py", name) for name in inside)
    assert (site / "tinycore_rules_delight" / "delight.rules").is_file()


def test_the_package_of_the_tutorial_is_the_example() -> None:
    shown = {info.split()[-1]: body for info, body in blocks() if len(info.split()) > 1}
    for name in (
        "pyproject.toml",
        "tinycore_rules_delight/tinycore.toml",
        "tinycore_rules_delight/delight.rules",
    ):
        assert (EXAMPLE / name).read_text(encoding="utf-8") == shown[name]
    code = [
        path for path in EXAMPLE.rglob("*.py") if "_compiled" not in path.parts and path.read_text().strip()
    ]
    assert not code, "a package of rules only"


def test_what_is_compared_can_differ() -> None:
    assert matches("a\n...\nd ... f\n", "a\nb\nc\nd e f\n") and matches("...\nb\n", "b\n")
    assert not matches("a\n", "b\n") and not matches("a\n", "a\nb\n") and not matches("...\nb\n", "b\nc\n")
    assert commands("$ a b\n1\n2\n$ c\n") == [("a b", "1\n2\n"), ("c", "")]
