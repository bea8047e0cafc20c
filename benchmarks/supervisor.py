"""Runs every row in a process of its own, so that a crash, a leak or a hang is one row's alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.model import Result, Row
from benchmarks.runner import Options

ROOT = Path(__file__).parent.parent


def measure(row: Row, kit_names: Sequence[str], options: Options, timeout: float) -> Result:
    """The row as far as it got; `failure` says what ended it early."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.worker",
        row.name,
        ",".join(kit_names),
        str(options.rounds),
        str(options.budget),
    ]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=errors)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        errors.seek(0)
        return collect(row, out.read().decode(), errors.read().decode(), status, time.monotonic() - start)


def collect(row: Row, out: str, errors: str, status: int | None, seconds: float) -> Result:
    """The last complete line that the worker printed; `status` is None after a timeout."""
    result = Result.of(row)
    for line in reversed(out.splitlines()):
        try:
            result = Result.from_json(json.loads(line))
            break
        except json.JSONDecodeError:
            continue  # the line that was being written when the process died
    if status is None:
        result.failure = f"timeout after {seconds:.0f} s"
    elif status < 0:
        result.failure = f"killed by {signal.Signals(-status).name}"
    elif status > 0:
        last = [line for line in errors.splitlines() if line.strip()][-1:]
        result.failure = f"exit status {status}: {''.join(last)}"
    return result
