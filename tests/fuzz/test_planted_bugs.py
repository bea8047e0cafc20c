"""Compiler bugs are caught: each planted alone, found by random graphs, and right again without it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinycore.testing.compare import case_of, check
from tinycore.testing.devices import runner

SCRIPT = Path(__file__).with_name("planted.py")
_spec = importlib.util.spec_from_file_location("planted", SCRIPT)
planted = importlib.util.module_from_spec(_spec)
sys.modules["planted"] = planted  # dataclasses look their module up
_spec.loader.exec_module(planted)
BUGS = planted.BUGS


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name):
    answer = subprocess.run(
        [sys.executable, str(SCRIPT), name, "1"], capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.returncode == 0, answer.stderr
    caught = json.loads(answer.stdout.splitlines()[-1])
    target = "program:" + BUGS[name].target
    for each in caught:
        case = eval(each["case"], {"case": case_of})
        try:
            check(case, runner(target), target)
        except Exception:  # noqa: BLE001 - wrong without the bug too: the next graph may prove something
            continue
        return
    pytest.fail(f"nothing found that {BUGS[name].what}; {len(caught)} graphs are wrong without it too")
