"""The pass, its results on disk, the block `tuned` and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tinycore_pass_search as searching
from tinycore_pass_search import session, tuned
from tinycore_pass_search.actions import from_json, to_json, version
from tinycore_pass_search.child import Child
from tinycore_pass_search.store import NAMESPACE, Record, Store, name_of, pack, store, unpack

from tinycore import Tensor
from tinycore.cli import main
from tinycore.codegen.pipeline import Context
from tinycore.codegen.staging import GroupReduce, Stage
from tinycore.codegen.tiling import Bind, Flatten, Merge, Order, Split
from tinycore.config import config, override
from tinycore.errors import ConfigError, DataError
from tinycore.runtime.cache import CacheWarning, DiskCache
from tinycore.runtime.compiler import compile_hooks, forget_loaded
from tinycore.runtime.devices import get_device

ACTIONS = (
    Merge(0, 1, 2),
    Split(2, 16, outer=7, inner=8, tail="peel", rest=9),
    Bind(8, "vector"),
    Flatten(7, 9, 10),
    GroupReduce(3, 11),
    Order((7, 8)),
    Stage(1, 0, 1001),
)
PROGRAM = """
import json, sys
import numpy as np
from tinycore_pass_search import child
from tinycore import Tensor
from tinycore.runtime.compiler import compile_hooks
if "measure" not in sys.argv:
    child.Child._start = lambda self: sys.exit("it measured")
tilings = []
compile_hooks.append(lambda kernel, program, source: tilings.append([str(a) for a in program.linear.arg or ()]))
x = np.arange(1 << 18, dtype=np.float32)
found = ((Tensor(x, device="CPU") * 0.5 + 1) * 2).numpy()
assert np.array_equal(found, (x * np.float32(0.5) + 1) * 2)
print(json.dumps(tilings))
"""


def program(cache, *arguments, **settings):
    variables = {"TINYCORE_CACHE_DIR": str(cache), "TINYCORE_DISABLE": "pass-tile", **settings}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_what_one_process_found_the_next_one_uses_without_measuring(tmp_path):
    """Without pass_tile, where every kernel has something to gain."""
    usual, quiet = program(tmp_path)
    assert usual == [[]] and quiet == ""
    (searched,), shown = program(tmp_path, "measure", TINYCORE_SEARCH="12")
    assert any("vector" in action for action in searched), shown
    assert "seed 0" in shown and "tried" not in shown.splitlines()[0]
    compiled, _ = program(tmp_path)
    assert compiled == []  # the kernel cache has the code of the tuned kernel
    DiskCache(tmp_path, "kernels").clear()
    again, quiet = program(tmp_path)
    assert again == [searched] and quiet == ""


def kernel_seen_by_the_pass(monkeypatch, compute):
    seen = []
    monkeypatch.setattr(session, "_base", lambda kernel, context: seen.append(kernel))
    with override(search=1), pytest.warns(searching.SearchWarning, match="cannot be replayed"):
        forget_loaded()
        compute()
    return seen[0]


def small(count=5000):
    return (Tensor(np.arange(count, dtype=np.float32), device="CPU") * 3 + 1).numpy()


@pytest.fixture
def kernel(cache, monkeypatch):
    with monkeypatch.context() as patch:
        found = kernel_seen_by_the_pass(patch, small)
    forget_loaded()
    return found


def context():
    from tinycore.runtime.joined import joined

    return Context(get_device("CPU").target, joined().doors)


def record_for(kernel, actions, base=None):
    chosen = session._base(kernel, context()) if base is None else base
    return Record(name_of(kernel), "CPU", chosen, actions, 2.0, 1.0, 10, 0)


OTHER = (Split(0, 8, outer=1, inner=2), Bind(2, "unroll"))


def test_nothing_happens_by_default(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "_start", lambda self: pytest.fail("it measured"))
    assert config().search == 0
    with override(cache_directory=tmp_path / "fresh"):
        assert searching.run(kernel, context()) is kernel
        assert small()[1] == 4.0
        assert (tmp_path / "fresh").exists() and not (tmp_path / "fresh" / NAMESPACE).exists()


def test_a_stored_result_is_applied(kernel):
    key = session.key_of(kernel, context().target)
    store().save(key, record_for(kernel, OTHER))
    tiled = searching.run(kernel, context())
    assert tiled.arg == OTHER
    names = []
    compile_hooks.append(lambda kernel, program, source: names.append(program.linear.arg))
    try:
        with override(cache=True):
            DiskCache(config().cache_directory, "kernels").clear()
            assert np.array_equal(small(), np.arange(5000, dtype=np.float32) * 3 + 1)
    finally:
        compile_hooks.pop()
    assert names == [OTHER]  # and pass_tile left it alone


def test_a_result_for_another_choice_of_pass_tile_says_nothing(kernel):
    key = session.key_of(kernel, context().target)
    store().save(key, record_for(kernel, OTHER, base=OTHER))
    assert searching.run(kernel, context()) is kernel


def test_a_result_that_does_not_fit_is_ignored_with_a_warning(kernel):
    key = session.key_of(kernel, context().target)
    store().save(key, record_for(kernel, (Split(77, 8, outer=78, inner=79),)))
    with pytest.warns(CacheWarning, match="does not fit"):
        assert searching.run(kernel, context()) is kernel


@pytest.mark.parametrize("damage", ["bytes", "words", "action"])
def test_damaged_results_are_ignored_with_a_warning(kernel, cache, damage):
    key = session.key_of(kernel, context().target)
    disk = DiskCache(cache, NAMESPACE)
    content = pack(record_for(kernel, OTHER))
    if damage == "words":
        content = b"[1, 2"
    elif damage == "action":
        content = content.replace(b'"Split"', b'"__import__"')
    disk.put(key, content)
    if damage == "bytes":
        (path,) = disk.directory.glob("*/*.entry")
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(bytes(data))
    with pytest.warns(CacheWarning):
        assert Store(cache).load(key) is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert searching.run(kernel, context()) is kernel


def test_a_block_tunes_what_is_compiled_in_it(cache, capfd):
    with tuned(4, kernel_seconds=2, seed=3) as tuning:
        assert small(1 << 20)[1] == 4.0
    (record,) = tuning.records.values()
    assert record.seed == 3 and record.target == "CPU" and record.base and record.tried
    assert config().search == 0
    shown = capfd.readouterr().err
    assert "at most 4 s, seed 3" in shown and record.kernel in shown
    with tuned(4, quiet=True) as second:  # known already: nothing is measured
        small(1 << 20)
    assert list(second.records) == [record.kernel] and second.child.starts == 0
    assert capfd.readouterr().err == ""


def test_what_takes_nothing_is_not_searched_and_not_looked_at_again(cache, capfd):
    for starts in (1, 0):
        with tuned(4, kernel_seconds=2) as tuning:
            assert small(64)[1] == 4.0
            forget_loaded()
            small(64)
        (record,) = tuning.records.values()
        assert record.tried == 0 and not record.improved and tuning.child.starts == starts
    assert record.kernel not in capfd.readouterr().err


def test_an_exhausted_time_box_leaves_kernels_alone(cache):
    with tuned(1, quiet=True) as tuning:
        tuning.clock.seconds = 0.0
        assert small()[1] == 4.0
    assert tuning.records == {} and tuning.child.starts == 0


def test_extra_rules_are_named_as_the_reason(cache, tmp_path):
    from tinycore import extra_rules

    rules = tmp_path / "own.rules"
    rules.write_text("group own(bottom_up) @stage(late) { twice: x:Float - x => 0.0 }")
    with (
        extra_rules(rules),
        pytest.warns(searching.SearchWarning, match="extra_rules"),
        tuned(2, quiet=True) as tuning,
    ):
        assert small()[1] == 4.0
    assert tuning.records == {}


@pytest.mark.parametrize("given", [{"seconds": 0}, {"seconds": 5, "kernel_seconds": -1}])
def test_a_time_box_is_positive(given):
    with pytest.raises(ValueError, match="more than 0 seconds"), tuned(**given):
        pass


def test_the_setting_is_checked():
    from tinycore.config import from_environment

    assert from_environment({"TINYCORE_SEARCH": "30"}).search == 30
    with pytest.raises(ConfigError, match="TINYCORE_SEARCH"):
        from_environment({"TINYCORE_SEARCH": "a while"})


# --- actions as data ------------------------------------------------------------------------------------------


def test_actions_survive_json():
    assert from_json(json.loads(json.dumps(to_json(ACTIONS)))) == ACTIONS
    assert version() == version() and len(version()) == 16


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [["Split"]],
        [["system", {"command": "ls"}]],
        [["Bind", {"range": 1}]],
        [["Bind", {"range": "1", "kind": "vector"}]],
        [["Bind", {"range": True, "kind": "vector"}]],
        [["Order", {"ranges": [1, "x"]}]],
        [["Split", {**to_json(ACTIONS)[1][1], "tail": "none"}]],
        [["Split", {**to_json(ACTIONS)[1][1], "more": 1}]],
    ],
)
def test_nothing_else_is_an_action(data):
    with pytest.raises(DataError):
        from_json(data)


def test_records_survive_packing(kernel):
    record = record_for(kernel, ACTIONS)
    assert unpack(pack(record)) == record
    for wrong in (b"", b"{}", b"[]", pack(record).replace(b'"format":1', b'"format":2')):
        with pytest.raises(DataError):
            unpack(wrong)


# --- the command ----------------------------------------------------------------------------------------------


def test_command(cache, capsys):
    words = ["search", "Input(40, 50) @ Input(50, 30)", "--seconds", "2", "--device", "CPU", "--json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["target"] == "CPU" and found["tried"] >= 0 and found["base"] and found["actions"]
    assert main(["search", "--list"]) == 0
    assert found["kernel"] in capsys.readouterr().out
    assert main(["search", "--forget"]) == 0
    assert main(["search", "--list"]) == 0
    assert "nothing is stored" in capsys.readouterr().out


def test_command_tells_what_is_wrong(cache, capsys):
    for words in ([], ["--list", "--forget"], ["Input(3)", "--seconds", "0"], ["Input(3) +"]):
        assert main(["search", *words]) == 2
        assert "error:" in capsys.readouterr().err
    assert main(["search", "Input(3) + 1", "--device", "INTERPRETER"]) == 2
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    assert "tinycore search 'Input(512, 512) @ Input(512, 512)'" in capsys.readouterr().out


def test_a_process_that_searches_nothing_imports_nothing(tmp_path):
    code = (
        "import sys; from tinycore import Tensor; (Tensor([1, 2, 3], device='CPU') + 1).tolist();"
        "print([name for name in sys.modules if name.startswith('tinycore_pass_search.') or name == 'rich'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TINYCORE_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
