"""`check` on hostile and on large files: findings with places, and time that grows with the number of rules."""

import importlib.util
import re
import sys
import time
from pathlib import Path

import pytest
from tinycore_tools_rules.check import check, check_text

ROOT = Path(__file__).resolve().parents[3]


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


hostile = loaded(ROOT / "tests" / "rules" / "hostile.py")
large = loaded(ROOT / "plugins" / "tools_rules" / "benchmarks" / "check_large.py")


@pytest.mark.parametrize("seed", [11, 12])
def test_hostile_files_have_findings_at_their_places(seed):
    found = 0
    for _, text in hostile.inputs(150, seed):
        for finding in check_text(text, "hostile.rules"):
            assert re.match(r"hostile\.rules:\d+:\d+", finding.where), (finding, text)
            found += 1
    assert found > 100


def test_bytes_that_are_no_text_are_a_finding(tmp_path):
    path = tmp_path / "file.rules"
    path.write_bytes(b"# fine\n  \xff\xfe")
    (finding,) = check(str(path))
    assert finding.severity == "error" and finding.where == f"{path}:2:3"


def test_every_mistake_of_a_file_is_found_and_nothing_in_a_right_one(tmp_path):
    path = tmp_path / "file.rules"
    path.write_text(large.large_file(60))
    assert check(str(path)) == []
    wrong = (
        large.large_file(60)
        .replace("r7: ", "r7: NOSUCH(x) => x\n  r7b: ")
        .replace("r40: ", "r40: x * 1 => z\n  r40b: ")
    )
    path.write_text(wrong)
    places = sorted(int(finding.where.split(":")[1]) for finding in check(str(path)))
    assert len(places) == 2 and places == [
        wrong.split("r7:")[0].count("\n") + 1,
        wrong.split("r40:")[0].count("\n") + 1,
    ]


def test_a_shadowed_rule_is_found_among_many(tmp_path):
    path = tmp_path / "file.rules"
    lines = large.large_file(200).splitlines()
    lines.insert(3, "  wide: x:Int * 77 => x + x * 76")
    lines.insert(-1, "  narrow: (x:Int + y) * 77 => x * 77 + y * 77")
    path.write_text("\n".join(lines))
    (finding,) = check(str(path))
    assert "narrow" in finding.message and "wide" in finding.message


def test_time_grows_with_the_number_of_rules(tmp_path):
    path = tmp_path / "file.rules"
    spent = {}
    for count in (150, 150, 900):
        path.write_text(large.large_file(count, seed=count + len(spent)))
        start = time.process_time()
        assert check(str(path)) == []
        spent[count] = time.process_time() - start
    assert spent[900] < 6 * 3 * spent[150], spent
