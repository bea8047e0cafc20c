"""The project's own small costs: scripts that print their own tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    "intern": "what UOp(...) costs beside a bare weak table",
    "rewrite": "how fast rules rewrite, beside tinygrad",
    "rules_load": "what loading all rules of the core costs in a fresh process",
    "launch": "what a launch costs on the CPU backend",
    "eager": "what a call costs that computes next to nothing, beside other libraries",
    "start": "imports and first results, with empty caches and with warm ones in a new process",
    "growth": "how time and memory of a first call grow with the size of a graph",
    "lowering": "what scheduling and lowering cost beside tinygrad's same stages",
}


def run(names: Sequence[str]) -> int:
    """Run scripts one after the other; the greatest exit status."""
    status = 0
    for name in names:
        print(f"\n{name}: {SCRIPTS[name]}", flush=True)
        status = max(status, subprocess.call([sys.executable, HERE / f"{name}.py"], cwd=HERE.parent))
    return status
