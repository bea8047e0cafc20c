"""The wheels of the workspace, installed by name into an empty environment, as a user has them.

Slow: it builds every project and downloads the third-party dependencies.
"""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

INSTALLED = (
    "tinycore",
    "tinycore-codegen-llvm",
    "tinycore-frontend-tensor",
    "tinycore-pass-locality",
    "tinycore-pass-tile",
    "tinycore-backend-cpu",
)

EXPRESSION = """
from tinycore import Tensor
a, b = Tensor([[1.0, -2.0], [3.0, 4.0]]), Tensor([[1.0, 2.0], [-3.0, 1.0]])
print((a @ b).relu().sum().numpy())
import sys
assert "lark" not in sys.modules, "a rule file was compiled on the user's machine"
"""
"""relu([[7, 0], [-9, 10]]) sums to 17."""

BROKEN = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "acme-accelerator"
        version = "0.0.7"
        dependencies = ["tinycore>=0.1.0"]
        [project.entry-points."tinycore.plugins"]
        acme = "acme_accelerator"
        [tool.hatch.build.targets.wheel]
        packages = ["acme_accelerator"]
        """,
    "acme_accelerator/__init__.py": "raise OSError('libacme.so.3: cannot open shared object file')\n",
    "acme_accelerator/tinycore.toml": """
        api = "1.0"
        uop_spec = 1
        [[backend]]
        name = "ACME"
        priority = 100000
        entry = "acme_accelerator:open_device"
        [[pass]]
        id = "acme"
        stage = "late"
        entry = "acme_accelerator:run"
        [hooks]
        module = "acme_accelerator.hooks"
        names = ["tinycore_add_commands", "tinycore_doctor", "tinycore_select_device", "tinycore_on_event"]
        """,
}


def call(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this process's Python environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TINYCORE_"))}
    kept.pop("DEV", None)
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**kept, **environment},
    )


def succeed(*command: str | Path, **environment: str) -> str:
    done = call(*command, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Installation:
    """An environment of its own."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.wheels, self.home = wheels, folder / "home"
        self.home.mkdir()
        venv.create(folder / "venv", with_pip=True)
        self.python = folder / "venv" / "bin" / "python"
        self.command = folder / "venv" / "bin" / "tinycore"
        self.settings = {"HOME": str(self.home), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return call(self.python, "-c", code, **self.settings, **environment)

    def tinycore(self, *words: str) -> subprocess.CompletedProcess[str]:
        return call(self.command, *words, **self.settings)

    def pip(self, *words: str | Path) -> None:
        succeed(self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", *words)

    def install(self, *names: str) -> None:
        """By name, from the wheels only: a package of the same name on an index must not get in."""
        self.pip("install", "--no-index", "--find-links", self.wheels, *names)


def requirements(wheels: Path) -> set[str]:
    """What the wheels need from elsewhere."""
    needed: set[str] = set()
    for name in INSTALLED:
        (wheel,) = wheels.glob(f"{name.replace('-', '_')}-[0-9]*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
            lines = email.message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
        needed.update(line for line in lines if "extra ==" not in line and not line.startswith("tinycore"))
    return needed


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    folder = tmp_path_factory.mktemp("packaging")
    wheels = folder / "wheels"
    succeed(sys.executable, ROOT / "dev.py", "build", wheels)
    installation = Installation(folder, wheels)
    installation.pip("install", *sorted(requirements(wheels)))
    installation.install("tinycore-frontend-tensor", "tinycore-backend-cpu")
    return installation


def test_every_project_has_a_wheel_with_its_data(installation):
    projects = [path.parent for path in ROOT.glob("plugins/*/pyproject.toml")]
    wheels = {path.name.split("-")[0]: path for path in installation.wheels.glob("*.whl")}
    assert {"tinycore", *(f"tinycore_{project.name}" for project in projects)} <= set(wheels)
    for package, wheel in wheels.items():
        if not package.startswith("tinycore"):
            continue
        names = zipfile.ZipFile(wheel).namelist()
        source = ROOT / "tinycore" if package == "tinycore" else ROOT / "plugins" / package[9:] / package
        data = [path for kind in ("*.rules", "*.toml", "*.lark", "py.typed") for path in source.rglob(kind)]
        assert {f"{package}/{path.relative_to(source)}" for path in data} <= set(names)
        rules = [path.relative_to(source) for path in source.rglob("*.rules")]
        for path in rules:
            compiled = re.compile(
                rf"{package}/{path.parent / '_compiled' / path.stem}_[0-9a-f]+\.py".replace("/./", "/")
            )
            assert [name for name in names if compiled.fullmatch(name)], f"{path} is not compiled in {wheel}"
        top_level = {name.split("/")[0] for name in names}
        assert {name for name in top_level if not name.endswith(".dist-info")} == {package}


def test_the_plugins_are_discovered_and_an_expression_runs(installation):
    listed = json.loads(installation.tinycore("plugins", "list", "--json").stdout)
    assert {each["id"]: each["state"] for each in listed} == {
        "backend-cpu": "ok",
        "codegen-llvm": "ok",
        "frontend-tensor": "ok",
        "pass-locality": "ok",
        "pass-tile": "ok",
    }
    done = installation.run(EXPRESSION, DEV="CPU")
    assert (done.returncode, done.stdout.strip()) == (0, "17.0"), done.stderr
    devices = json.loads(installation.tinycore("devices", "--json").stdout)
    assert devices["default"] == "CPU"


def test_a_missing_plugin_tells_what_to_install(installation):
    done = installation.run("from tinycore import Tensor", TINYCORE_PLUGINS="backend-cpu")
    assert done.returncode == 1
    assert "'Tensor' is not available: not in TINYCORE_PLUGINS" in done.stderr
    assert "tinycore-frontend-tensor 0.1.0" in done.stderr


def test_a_broken_plugin_beside_it_is_named_and_harms_nobody(installation, tmp_path):
    for name, text in BROKEN.items():
        path = tmp_path / "acme" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps")
    succeed(*pip, "--no-build-isolation", "--wheel-dir", installation.wheels, tmp_path / "acme")
    installation.install("acme-accelerator")
    try:
        assert "acme" in installation.tinycore("plugins", "list").stdout
        assert installation.tinycore("--help").returncode == 0
        doctor = installation.tinycore("doctor")
        assert doctor.returncode == 1
        assert re.search(r"error .*acme-accelerator 0\.0\.7.*libacme\.so\.3", doctor.stdout), doctor.stdout

        done = installation.run(EXPRESSION)
        assert (done.returncode, done.stdout.strip()) == (0, "17.0"), done.stderr
        assert "acme-accelerator 0.0.7" in done.stderr and "libacme.so.3" in done.stderr

        asked = installation.run(EXPRESSION, DEV="ACME")
        assert asked.returncode == 1
        assert "BackendUnavailable" in asked.stderr and "tinycore plugins disable acme" in asked.stderr

        assert installation.tinycore("plugins", "disable", "acme").returncode == 0
        quiet = installation.run(EXPRESSION)
        assert (quiet.returncode, quiet.stdout.strip(), quiet.stderr) == (0, "17.0", "")
    finally:
        installation.pip("uninstall", "--yes", "acme-accelerator")


def test_without_a_backend_the_interpreter_runs_it(installation):
    done = installation.run(EXPRESSION, TINYCORE_DISABLE="backend-cpu")
    assert (done.returncode, done.stdout.strip()) == (0, "17.0"), done.stderr
