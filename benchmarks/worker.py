"""One row in a process of its own: `python -m benchmarks.worker ROW KIT,... ROUNDS BUDGET`.

Prints what is known so far as one JSON line after every step, so that a crash or a timeout loses only the
step that it hit. Kernels are compiled into an empty cache: first calls are cold, libraries already imported.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import kits
from benchmarks.model import Result
from benchmarks.rows import ROWS
from benchmarks.runner import Options, run_row


def main(name: str, kit_names: str, rounds: str, budget: str) -> None:
    """Measure one row."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is not ours
    with tempfile.TemporaryDirectory() as folder:
        _empty_caches(Path(folder))
        loaded: list[kits.Kit] = []
        broken: dict[str, str] = {}
        for kit_name in kit_names.split(","):
            try:
                kit = kits.load(kit_name)
            except Exception as problem:  # noqa: BLE001  a library that cannot be imported is its own failure
                broken[kit_name] = f"{type(problem).__name__}: {problem}"[:500]
            else:
                loaded += [kit] if kit is not None else []

        def emit(result: Result) -> None:
            print(json.dumps(result.as_json()), file=lines, flush=True)

        row = ROWS[name]
        base = ROWS[row.near] if row.near else None
        run_row(row, loaded, Options(int(rounds), float(budget)), emit, broken, base)


def _empty_caches(folder: Path) -> None:
    """Before any library is imported: tinycore's, tinygrad's and torch's compilers start from nothing."""
    os.environ["CACHEDB"] = str(folder / "tinygrad.db")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    from tinycore.config import set_default

    set_default(cache_directory=folder / "tinycore")


if __name__ == "__main__":
    main(*sys.argv[1:])
