"""The cache of compiled rules: found by content, believed only when it is the user's own and undamaged."""

import os
import subprocess
import sys

import pytest

from tinycore import rules
from tinycore.config import override
from tinycore.ir import UOp
from tinycore.rules import cache

TEXT = "group g(fixpoint) { one: x * 1 => x }"
N = UOp.variable("n", 1, 9)


@pytest.fixture
def home(tmp_path):
    directory = tmp_path / "cache"
    with override(cache_directory=directory, cache=True):
        yield directory


@pytest.fixture
def compilations(monkeypatch):
    """Counts how often a text is really compiled."""
    counted = []
    original = cache._compile
    monkeypatch.setattr(cache, "_compile", lambda text, path: counted.append(path) or original(text, path))
    return counted


def entry_of(home):
    (entry,) = (home / "rules").glob("*.rules")
    return entry


def works(path):
    assert rules.load_file(path).groups["g"](N * 1) is N


def test_second_load_compiles_nothing(home, compilations, load, tmp_path):
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    works(path)
    works(path)
    assert len(compilations) == 1
    path.write_text(TEXT + "  # changed")
    works(path)
    assert len(compilations) == 2
    with override(cache=False):
        works(path)
    assert len(compilations) == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign magic"])
def test_damaged_entries_are_compiled_again(home, compilations, tmp_path, damage):
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    works(path)
    entry = entry_of(home)
    data = bytearray(entry.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "truncate":
        del data[-20:]
    elif damage == "empty":
        data.clear()
    else:
        data[:8] = b"whatever"
    entry.write_bytes(data)
    works(path)
    assert len(compilations) == 2
    works(path)
    assert len(compilations) == 2, "the entry was repaired"


@pytest.mark.skipif(os.name == "nt", reason="modes mean nothing there")
@pytest.mark.parametrize("what", ["entry", "directory", "root"])
def test_what_others_may_write_is_not_believed(home, compilations, tmp_path, what):
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    works(path)
    target = {"entry": entry_of(home), "directory": home / "rules", "root": home}[what]
    target.chmod(0o777)
    works(path)
    assert len(compilations) == 2


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_linked_entry_is_not_believed(home, compilations, tmp_path):
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    works(path)
    entry = entry_of(home)
    moved = tmp_path / "elsewhere"
    entry.rename(moved)
    entry.symlink_to(moved)
    works(path)
    assert len(compilations) == 2


def test_an_unusable_cache_is_no_error(tmp_path, compilations):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    with override(cache_directory=blocked / "below", cache=True):
        works(path)
    assert len(compilations) == 1


def test_the_key_covers_what_matters(monkeypatch):
    from tinycore.ir.ops import TABLE

    assert cache.key_of(TEXT) == cache.key_of(TEXT) != cache.key_of(TEXT + " ")
    with_sin = "group g(fixpoint) { one: SIN(x) => x }"
    with_class = "group g(fixpoint) { one: Unary(x) => x }"
    keys = cache.key_of(TEXT), cache.key_of(with_sin), cache.key_of(with_class)
    row = TABLE["SIN"]
    object.__setattr__(row, "commutative", True)
    try:
        changed = cache.key_of(TEXT), cache.key_of(with_sin), cache.key_of(with_class)
    finally:
        object.__setattr__(row, "commutative", False)
    assert keys[0] == changed[0], "a row that a file does not mention invalidates nothing"
    assert keys[1] != changed[1] and keys[2] != changed[2]
    monkeypatch.setattr(cache, "generator_digest", lambda: "another generator")
    assert cache.key_of(TEXT) != keys[0]


def test_a_shipped_form_needs_neither_lark_nor_the_users_cache(tmp_path):
    package = tmp_path / "shipped_example"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "r.rules").write_text(TEXT)
    program = (
        "import sys; from tinycore import rules; from tinycore.ir import UOp; n = UOp.variable('n', 1, 9)\n"
        "assert rules.load('shipped_example.r').groups['g'](n * 1) is n; print('lark' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TINYCORE_CACHE": "0"}

    def run(code=program):
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )

    assert run().stdout.strip() == "True"
    made = run("from tinycore import rules; print(rules.precompile('shipped_example.r'))").stdout.strip()
    assert made.startswith(str(package / "_compiled" / "r_"))
    assert run().stdout.strip() == "False"
    (package / "r.rules").write_text(TEXT + "\n")
    assert run().stdout.strip() == "True", "a stale form is not used"
    run("from tinycore import rules; rules.precompile('shipped_example.r')")
    assert len(list((package / "_compiled").glob("*.py"))) == 1, "the stale form is gone"


def test_a_hit_in_the_users_cache_imports_no_lark(tmp_path):
    path = tmp_path / "a.rules"
    path.write_text(TEXT)
    program = f"import sys, tinycore.rules as r; r.load_file({str(path)!r}); print('lark' in sys.modules)"
    environment = {**os.environ, "TINYCORE_CACHE_DIR": str(tmp_path / "cache"), "TINYCORE_CACHE": "1"}
    seen = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert seen == ["True", "False"]


def test_importing_the_rules_imports_neither_lark_nor_numpy():
    program = "import sys, tinycore.rules; print('lark' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
