"""Measures candidates in a child process, which is started again when one of them crashes or hangs it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tinycore.codegen.tiling import Action
from tinycore.config import config
from tinycore.errors import DeviceError
from tinycore.ir import Target, UOp
from tinycore.ir.text import print_graph
from tinycore_pass_search.actions import to_json

Status = Literal["ok", "slow", "same", "wrong", "failed", "crashed", "timeout"]
COMMAND = (sys.executable, "-m", "tinycore_pass_search.worker")
START_SECONDS = 60.0
"""A child that was started again and has not run the untuned kernel by then is given up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of a candidate.

    Attributes
    ----------
    status: "ok"; or "slow" (cut short), "same" (as another), "wrong" (another result), "failed" (cannot be
        compiled or launched), "crashed" (ended the process), "timeout".
    seconds: of its fastest launch; infinite when it has none.
    why: the reason when it is not "ok".
    """

    status: Status
    seconds: float = float("inf")
    why: str = ""


class Measurer(Protocol):
    """Measures the candidates of one kernel; `ChildMeasurer` is the one that searches use."""

    def start(self, base: Sequence[Action], patience: float) -> Measured:
        """Run the untuned kernel, whose answer is the reference."""

    def measure(self, actions: Sequence[Action], cutoff: float, patience: float) -> Measured:
        """Measure a candidate: at most `patience` seconds, cut short when far behind `cutoff`."""

    def duel(
        self, one: Sequence[Action], other: Sequence[Action], seconds: float, patience: float
    ) -> tuple[float, float] | None:
        """Seconds of two candidates measured in turns; None when that fails."""


class _Lost(Exception):
    """The child is gone, or was given up."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Child:
    """The process; it serves one kernel after the other and is started when it is first needed.

    Parameters
    ----------
    command: what to run instead of `tinycore_pass_search.worker` (tests of what can go wrong).
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.starts = 0

    def ask(self, request: Mapping[str, Any], patience: float) -> Mapping[str, Any]:
        """The answer to a request; an answer of status "crashed" or "timeout" when there is none."""
        try:
            return self._ask(request, patience)
        except _Lost as lost:
            self.close()
            return {"status": lost.status, "why": lost.why}

    @property
    def running(self) -> bool:
        """Whether there is a process that remembers what it was told."""
        return self._process is not None and self._process.poll() is None

    def _ask(self, request: Mapping[str, Any], patience: float) -> Mapping[str, Any]:
        if not self.running:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except OSError:
            raise _Lost("crashed", self._ended()) from None
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            raise _Lost("timeout", f"no answer in {patience:.1f} s") from None
        if line is None:
            raise _Lost("crashed", self._ended())
        answer: Mapping[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> str:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        return f"the process that measured it ended with status {self._process.returncode}"

    def _start(self) -> None:
        self.starts += 1
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True).start()
        self._process.stdin.write(json.dumps(_settings()) + "\n")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[str | None]) -> None:
    """Lines of the child, then None. A thread of its own, because pipes have no timeouts everywhere."""
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):  # closed while we read
        for line in process.stdout:
            answers.put(line)
    answers.put(None)


def _settings() -> dict[str, Any]:
    now = config()
    return {
        "threads": now.threads,
        "plugins": now.plugins,
        "disabled_plugins": now.disabled_plugins,
        "config_directory": None if now.config_directory is None else str(now.config_directory),
    }


class ChildMeasurer:
    """A `Measurer` for one kernel on one device."""

    def __init__(self, child: Child, kernel: UOp, target: Target) -> None:
        self._child = child
        self._opening: dict[str, Any] = {
            "do": "kernel",
            "text": print_graph(kernel),
            "device": target.name,
            "fingerprint": target.fingerprint,
        }

    def start(self, base: Sequence[Action], patience: float) -> Measured:
        """See `Measurer`. Called again by itself when the child had to be started again."""
        self._opening["base"] = to_json(base)
        return _measured(self._child.ask(self._opening, patience))

    def measure(self, actions: Sequence[Action], cutoff: float, patience: float) -> Measured:
        """See `Measurer`."""
        request = {"do": "try", "actions": to_json(actions), "cutoff": cutoff}
        return _measured(self._asked(request, patience))

    def duel(
        self, one: Sequence[Action], other: Sequence[Action], seconds: float, patience: float
    ) -> tuple[float, float] | None:
        """See `Measurer`."""
        request = {"do": "duel", "one": to_json(one), "other": to_json(other), "seconds": seconds}
        answer = self._asked(request, patience)
        return (answer["before"], answer["after"]) if answer["status"] == "ok" else None

    def _asked(self, request: Mapping[str, Any], patience: float) -> Mapping[str, Any]:
        if not self._child.running:
            again = self._child.ask(self._opening, START_SECONDS)
            if again["status"] != "ok":
                raise DeviceError("the untuned kernel cannot be measured any more", hint=again["why"])
        return self._child.ask(request, patience)


def _measured(answer: Mapping[str, Any]) -> Measured:
    return Measured(answer["status"], float(answer.get("seconds", "inf")), str(answer.get("why", "")))
