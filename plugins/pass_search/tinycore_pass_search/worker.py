"""The child process of a search: `python -m tinycore_pass_search.worker`.

Reads one JSON request a line, answers one JSON line each. A request that fails is answered with the reason; one
that crashes or hangs ends this process, and the parent starts another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tinycore.config import set_default
from tinycore.errors import DeviceError
from tinycore.ir.text import digest, parse
from tinycore.runtime.devices import get_device
from tinycore_pass_search.actions import from_json
from tinycore_pass_search.bench import Bench, Candidate

Answer = dict[str, Any]


class Worker:
    """Answers requests about one kernel at a time."""

    def __init__(self) -> None:
        self.bench: Bench | None = None
        self._tried: set[str] = set()

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """The answer to a request. Every reason why it cannot be given is an answer, too."""
        try:
            action = {"kernel": self._kernel, "try": self._try, "duel": self._duel}[request["do"]]
            return action(request)
        except Exception as problem:  # noqa: BLE001  a candidate may fail in any way; the search goes on
            text = str(problem).splitlines()
            return {"status": "failed", "why": f"{type(problem).__name__}: {text[0] if text else ''}"[:300]}

    def _kernel(self, request: Mapping[str, Any]) -> Answer:
        device = get_device(request["device"])
        if device.target.fingerprint != request["fingerprint"]:
            raise DeviceError("the device is another one in the child process")
        if self.bench is not None:
            self.bench.close()
        self.bench = Bench(parse(request["text"]), device)
        self._tried = set()
        base = self._compiled(request["base"])
        self.bench.reference = self.bench.answer(base)
        seconds, _ = self.bench.time(base, None)
        self._tried.add(_content(base))
        return {"status": "ok", "seconds": seconds}

    def _compiled(self, actions: object) -> Candidate:
        assert self.bench is not None
        return self.bench.compile(from_json(actions))

    def _try(self, request: Mapping[str, Any]) -> Answer:
        bench = self.bench
        assert bench is not None
        candidate = self._compiled(request["actions"])
        content = _content(candidate)
        if content in self._tried:
            return {"status": "same", "why": "the same program as another candidate"}
        self._tried.add(content)
        wrong = bench.difference(bench.answer(candidate))
        if wrong is not None:
            return {"status": "wrong", "why": wrong}
        seconds, whole = bench.time(candidate, request.get("cutoff"))
        return {"status": "ok" if whole else "slow", "seconds": seconds}

    def _duel(self, request: Mapping[str, Any]) -> Answer:
        assert self.bench is not None
        one, other = self._compiled(request["one"]), self._compiled(request["other"])
        before, after = self.bench.duel(one, other, float(request["seconds"]))
        return {"status": "ok", "before": before, "after": after}


def _content(candidate: Candidate) -> str:
    """What a candidate became; lists of actions often differ only in words."""
    return digest(candidate.program.linear.replace(arg=None))


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parent's settings, as far as they matter here; a child never searches and caches nothing."""
    directory = given.get("config_directory")
    return {
        "threads": given.get("threads"),
        "plugins": None if given.get("plugins") is None else tuple(given["plugins"]),
        "disabled_plugins": tuple(given.get("disabled_plugins", ())),
        "config_directory": None if directory is None else Path(directory),
        "search": 0,
        "cache": False,
        "debug": 0,
        "validate": False,
    }


def serve(source: TextIO, sink: TextIO, worker: Worker) -> None:
    """Answer until there are no more requests. The first line has the parent's settings."""
    set_default(**settings(json.loads(source.readline() or "{}")))
    for line in source:
        print(json.dumps(worker.answer(json.loads(line))), file=sink, flush=True)


def main() -> None:
    """Answers go to standard output; whatever libraries print goes to standard error."""
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, sink, Worker())


if __name__ == "__main__":
    main()
