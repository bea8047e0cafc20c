"""What it costs to load every rule file of the core in a fresh process, when they are compiled already.

    python benchmarks/rules_load.py [--processes 9] [--check]

Each process imports `tinycore.rules`, then loads all files with their natives; only the loading is timed, once as
elapsed and once as processor time, and the least of the processes counts: others only waited. The first process
fills the cache and is not counted. ``--check`` fails above the limit, or when one imported lark.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 30.0
"""Milliseconds for all files together."""

PROGRAM = """
import json, sys, time
from pathlib import Path
import tinycore
from tinycore import rules
from tinycore.config import set_default

set_default(cache_directory=Path(sys.argv[1]))
root = Path(tinycore.__file__).parent
names = sorted(".".join(("tinycore", *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.rules"))
loaded, files = set(sys.modules), {}
elapsed, processor = time.perf_counter(), time.process_time()
for name in names:
    start = time.process_time()
    rules.load(name)
    files[name] = (time.process_time() - start) * 1e3
print(json.dumps({
    "elapsed": (time.perf_counter() - elapsed) * 1e3,
    "processor": (time.process_time() - processor) * 1e3,
    "files": files,
    "lark": any(name.partition(".")[0] == "lark" for name in set(sys.modules) - loaded),
}))
"""


def measure(processes: int) -> list[dict]:
    """What each warm process says of itself."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", PROGRAM, str(Path(cache, "tinycore"))]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(processes + 1)
        ]
    return runs[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--check", action="store_true", help="fail above the limit")
    options = parser.parse_args()
    runs = measure(options.processes)
    for name in runs[0]["files"]:
        print(f"{name:<32} {min(run['files'][name] for run in runs):6.2f} ms")
    elapsed, processor = (min(run[key] for run in runs) for key in ("elapsed", "processor"))
    lark = any(run["lark"] for run in runs)
    print(
        f"all together: {elapsed:.1f} ms elapsed, {processor:.1f} ms of the processor (limit {LIMIT:.0f} ms)"
    )
    print(f"lark was {'' if lark else 'not '}imported")
    return 1 if options.check and (processor > LIMIT or lark) else 0


if __name__ == "__main__":
    sys.exit(main())
