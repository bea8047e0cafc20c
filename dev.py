#!/usr/bin/env python3
"""Sets up the workspace and runs one task: python3 dev.py demo | test | bench | build | docs | lint.

Needs Python 3.11 and pip, nothing else. Makes `.venv` beside this file, installs the core and every plugin
editable, and does that again only when a pyproject or a requirements file has changed. Works from any
directory. Whatever follows the task is passed on:

    python3 dev.py test tests/plugin -k manifest
    python3 dev.py demo --epochs 2
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import venv
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "tinycore-workspace.sha256"
DOCUMENTS = ROOT / "build" / "docs"

COMPILE_RULES = """
import sys
from pathlib import Path
from tinycore.rules import cache
for path in map(Path, sys.argv[1:]):
    cache.ship(path)
"""
"""Runs with the workspace's Python, because this file knows nothing but the standard library."""


def say(message: str) -> None:
    """One line about what happens next, in order with the output of child processes."""
    print(f"[dev] {message}", flush=True)


def projects() -> list[Path]:
    """The folders of all projects: the core, then the plugins by name."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def run(*command: str | Path) -> int:
    """Run a command in the root of the repository and return its exit status."""
    words = [str(word) for word in command]
    say(shlex.join(words))
    return subprocess.call(words, cwd=ROOT)


def require(*command: str | Path) -> None:
    """Run a command; leave with its status when it fails."""
    if status := run(*command):
        sys.exit(status)


def fingerprint() -> str:
    """Changes whenever what must be installed changes."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for path in [ROOT / "requirements.txt", *(project / "pyproject.toml" for project in projects())]:
        digest.update(f"\n{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def setup() -> None:
    """Make `.venv` and install the workspace, unless both are already as they should be."""
    if sys.version_info < (3, 11):  # noqa: UP036  whoever runs this has not installed anything yet
        sys.exit(f"tinycore needs Python 3.11 or newer, and this is {sys.version.split()[0]}")
    wanted = fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not PYTHON.exists():
        say(f"making {VENV.relative_to(ROOT)} with Python {sys.version.split()[0]}")
        venv.create(VENV, with_pip=True, symlinks=os.name != "nt")
    say("installing the workspace (only when a pyproject or requirements.txt changes)")
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    # One build backend for all projects, instead of an isolated environment downloaded for each.
    require(*pip, "hatchling>=1.27", "editables>=0.5")
    require(*pip, "--no-build-isolation", "-r", "requirements.txt")
    STAMP.write_text(wanted)


def task_demo(arguments: Sequence[str]) -> int:
    """Train a network on handwritten digits and show what the compiler did."""
    return run(PYTHON, ROOT / "examples" / "digits.py", *arguments)


def task_test(arguments: Sequence[str]) -> int:
    """Run the tests in parallel."""
    workers = str(max(2, os.cpu_count() or 2))
    return run(PYTHON, "-m", "pytest", "-n", workers, "--dist", "loadgroup", *arguments)


def task_bench(arguments: Sequence[str]) -> int:
    """Run the benchmarks beside the peers that are installed; --list shows the rows."""
    return run(PYTHON, "-m", "benchmarks", *arguments)


def task_build(arguments: Sequence[str]) -> int:
    """Build a wheel for every project into dist/ (or into the folder that is named)."""
    destination = Path(arguments[0]).resolve() if arguments else ROOT / "dist"
    if destination == ROOT / "dist":
        shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True, exist_ok=True)
    packages = [ROOT / "tinycore", *ROOT.glob("plugins/*/tinycore_*")]
    rule_files = sorted(path for package in packages for path in package.rglob("*.rules"))
    try:
        # Wheels carry compiled rules, so that no user's machine compiles them, or imports the parser.
        say(f"compiling {len(rule_files)} rule files")
        if status := subprocess.call([PYTHON, "-c", COMPILE_RULES, *rule_files], cwd=ROOT):
            return status
        for project in projects():
            pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
            require(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", destination, project)
    finally:
        for folder in {path.parent / "_compiled" for path in rule_files}:
            shutil.rmtree(folder, ignore_errors=True)
    say("built " + ", ".join(sorted(path.name for path in destination.glob("*.whl"))))
    return 0


def task_docs(arguments: Sequence[str]) -> int:
    """Build the documents and the API reference into build/docs, warnings being errors; --open shows them."""
    if subprocess.call([PYTHON, "-c", "import sphinx, myst_parser, furo"], stderr=subprocess.DEVNULL):
        say("installing what builds the documents")
        pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        require(*pip, "--no-build-isolation", "-e", ".[docs]")
    require(PYTHON, ROOT / "docs" / "generate_uops.py")
    rest = [word for word in arguments if word != "--open"]
    sphinx = (PYTHON, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", "docs")
    status = run(*sphinx, *rest, ".", DOCUMENTS)
    start = DOCUMENTS / "docs" / "index.html"
    if not status:
        say(f"built {start.relative_to(ROOT)}")
        if "--open" in arguments:
            webbrowser.open(start.as_uri())
    return status


def task_lint(arguments: Sequence[str]) -> int:
    """Run ruff, mypy --strict on every project, the import contracts, and what rule files have to hold."""
    packages = [ROOT / "tinycore", *sorted(ROOT.glob("plugins/*/tinycore_*"))]
    folders = [*packages, ROOT / "benchmarks", ROOT / "examples"]
    rule_files = sorted(path for folder in folders for path in folder.rglob("*.rules"))
    where = arguments or ["."]
    checks = {
        "ruff check": (BIN / "ruff", "check", "--output-format", "concise", *where),
        "ruff format": (BIN / "ruff", "format", "--check", *where),
        **{f"mypy {path.name}": (PYTHON, "-m", "mypy", "--strict", path) for path in packages},
        "import contracts": (BIN / "lint-imports", "--no-logo"),
        "rules fmt": (BIN / "tinycore", "rules", "fmt", "--check", *rule_files),
        "rules termination": (BIN / "tinycore", "rules", "termination", *rule_files),
    }
    failed = [name for name, command in checks.items() if run(*command)]
    say(f"failed: {', '.join(failed)}" if failed else f"all {len(checks)} checks passed")
    return 1 if failed else 0


TASKS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": task_demo,
    "test": task_test,
    "bench": task_bench,
    "build": task_build,
    "docs": task_docs,
    "lint": task_lint,
}


def main() -> int:
    """Parse the command line, set up, run the task."""
    tasks = "\n".join(f"  {name:8}{task.__doc__}" for name, task in TASKS.items())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog=f"tasks:\n{tasks}\n  setup   Only make .venv and install the workspace.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=[*TASKS, "setup"], metavar="task")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the task")
    options = parser.parse_args()
    setup()
    return TASKS[options.task](options.arguments) if options.task in TASKS else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
