"""Plans on disk: another process neither schedules nor lowers, and believes nothing that does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from graphs import contiguous, data, matmul, need, node, permute, relu, reshape, softmax

from tinycore import extra_rules
from tinycore.config import override
from tinycore.interpret import interpret
from tinycore.ir import dtypes
from tinycore.runtime import compiler, plan, stored
from tinycore.runtime.cache import CacheWarning, DiskCache
from tinycore.runtime.devices import get_device
from tinycore.runtime.environment import PassSpec, environment, override_environment
from tinycore.runtime.realize import realize
from tinycore.runtime.storage import from_host, storage_of, to_host
from tinycore.schedule import outline


@pytest.fixture(autouse=True)
def cache(tmp_path):
    """An empty cache, and nothing remembered in this process."""
    need("CPU")
    compiler.forget_loaded()
    with override(cache_directory=tmp_path, device="CPU"):
        yield tmp_path
    compiler.forget_loaded()


def program(x, weight):
    hidden = relu(matmul(x, permute(weight, 1, 0)))
    return [softmax(hidden), reshape(contiguous(hidden + 1.0) * 2.0, hidden.shape[0] * hidden.shape[1]), x]


def check(seed=0):
    arrays = [data((64, 128), seed=seed), data((96, 128), seed=seed + 1)]
    nodes = [from_host(array, "CPU") for array in arrays]
    wanted = interpret(program(*nodes), dict(zip(nodes, arrays, strict=True)))
    for turn in range(3):
        for got, want in zip(realize(program(*nodes)), wanted, strict=True):
            np.testing.assert_allclose(to_host(got), want, rtol=1e-4, atol=1e-4, err_msg=f"turn {turn}")


def entries(cache):
    return sorted((cache / "plans").rglob("*.entry"))


def never(*arguments, **options):
    raise AssertionError("this had been done before")


def test_a_stored_plan_needs_no_scheduler_and_no_compiler(cache, monkeypatch):
    check()
    assert len(entries(cache)) == 1
    compiler.forget_loaded()
    for module, name in ((plan, "make_schedule"), (plan, "number_buffers"), (compiler, "lower")):
        monkeypatch.setattr(module, name, never)
    check(seed=7)


CHILD = """
import sys
import numpy as np
from tinycore import Tensor
from tinycore.runtime import plan, stored
keys = []
key_of = plan.plan_key
plan.plan_key = lambda *arguments: keys.append(key_of(*arguments)) or keys[-1]
make, made = plan.make_schedule, []
plan.make_schedule = lambda *arguments, **options: made.append(1) or make(*arguments, **options)
x = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="CPU")
y = ((x + 1).softmax(-1) @ x.T).relu()
print(len(made), y.numpy().sum(), len(made), *keys)
"""


def test_another_process_schedules_nothing(cache):
    def child(seed):
        settings = {**os.environ, "TINYCORE_CACHE_DIR": str(cache), "PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", CHILD], env=settings, check=True, capture_output=True, text=True
        )
        before, total, after, *keys = found.stdout.split()
        return float(total), int(before), int(after), keys

    first, second = child("1"), child("2")
    assert first[0] == second[0]
    assert first[1:3] == (0, 1)
    assert second[1:3] == (0, 0)
    assert first[3] == second[3]


def damaged(cache, change):
    """Changes the content of the only entry, and stores it as the cache would."""
    (path,) = entries(cache)
    disk = DiskCache(cache, "plans")
    content = json.loads(disk.get(path.stem))
    changed = change(content)
    disk.put(path.stem, changed if isinstance(changed, bytes) else json.dumps(content).encode())


def put(*path):
    def change(content):
        *way, last, value = path
        for step in way:
            content = content[step]
        content[last] = value

    return change


WRONG = {
    "no JSON": lambda content: b"\x80\x04K\x01.",
    "a list": lambda content: b"[1, 2]",
    "a field is missing": lambda content: content.pop("launches") and None,
    "a place that is not there": put("launches", 0, 1, 0, 99),
    "a negative place": put("launches", 0, 1, 0, -1),
    "a fraction": put("launches", 0, 1, 0, 1.5),
    "true": put("results", 0, 0, True),
    "too few arguments": lambda content: content["launches"][0][1].pop() and None,
    "a kernel that is not there": put("launches", 0, 0, 50),
    "another dtype": put("made", 0, 0, "float31"),
    "a negative size": put("made", 0, 1, 0, -64),
    "a source that is made": put("remembered", 0, 1, 5),
    "a key that names a file": put("kernels", 0, "../../etc/passwd"),
    "a result that is temporary": put("results", 0, 0, 4),
    "another device": put("device", "INTERPRETER"),
    "no device": put("device", "ABACUS"),
}


@pytest.mark.parametrize("problem", WRONG)
def test_what_does_not_fit_is_not_believed(problem, cache):
    check()
    damaged(cache, WRONG[problem])
    compiler.forget_loaded()
    plan._warn_of_entry.cache_clear()
    with pytest.warns(CacheWarning, match="plan cache"):
        check(seed=3)
    compiler.forget_loaded()
    check(seed=5)  # it was stored anew


def test_a_plan_for_another_machine_is_made_again(cache):
    check()
    damaged(cache, put("target", 2, "another processor"))
    compiler.forget_loaded()
    check(seed=3)


def test_lost_kernels_are_compiled_again(cache):
    check()
    compiler.forget_loaded()
    DiskCache(cache, "kernels").clear()
    check(seed=3)
    compiler.forget_loaded()
    check(seed=5)


def test_packed_weights_are_shared_by_stored_and_new_plans(cache):
    weight = from_host(data((96, 128), seed=1), "CPU")
    x = from_host(data((64, 128)), "CPU")
    realize(program(x, weight))
    copies = list(storage_of(weight)._derived.values())
    assert len(copies) == 1
    compiler.forget_loaded()
    realize(program(x, weight))
    assert list(storage_of(weight)._derived.values()) == copies
    assert copies[0].version == 1


def test_everything_that_decides_is_part_of_the_key(tmp_path):
    found, _ = outline([softmax(node((4, 4), device="CPU"))])

    def key(**changes):
        return stored.plan_key(
            changes.get("found", found), changes.get("home", "CPU"), changes.get("devices", {"CPU"})
        )

    known, target = environment(), get_device("CPU").target
    nothing = PassSpec("nothing", "schedule", run=lambda placement, context: placement)
    passes = {**known.passes, "schedule": (*known.passes_at("schedule"), nothing)}
    keys = [
        key(),
        key(home="INTERPRETER"),
        key(devices={"INTERPRETER"}),
        key(found=outline([softmax(node((4, 5), device="CPU"))])[0]),
        key(found=outline([softmax(node((4, 4), dtypes.float64, device="CPU"))])[0]),
        key(found=outline([softmax(node((4, 4), device="CPU")) + 1.0])[0]),
        key(found=outline([softmax(node((4, 4), device="CPU")) + 2.0])[0]),
    ]
    for changed in (
        replace(known, versions=(("x", "1"),)),
        replace(known, sources=()),
        replace(known, passes=passes),
    ):
        with override_environment(changed):
            keys.append(key())
    path = tmp_path / "mine.rules"
    path.write_text("group mine(bottom_up) @stage(late) { twice: x:Float + x => x * 2 }")
    with extra_rules(path):
        keys.append(key())
    device = get_device("CPU")
    others = (
        replace(target, fingerprint="other"),
        replace(target, capabilities=replace(target.capabilities, threads=99)),
    )
    for other in others:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device, "target", other)
            keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]


@pytest.mark.parametrize("settings", [{"cache": False}, {"debug": 1}, {"validate": True}], ids=str)
def test_nothing_is_stored_where_somebody_watches_or_wants_no_cache(cache, settings):
    with override(**settings):
        check()
    assert entries(cache) == []


def test_every_source_of_a_plugin_counts(tmp_path):
    folder = tmp_path / "plugin"
    (folder / "inner").mkdir(parents=True)
    (folder / "_compiled").mkdir()

    def digest():
        compiler.compiler_digest.cache_clear()
        return compiler.compiler_digest((folder,))

    found = [digest()]
    for name, content in (
        ("a.py", "1"),
        ("a.py", "2"),
        ("inner/b.rules", ""),
        ("inner/c.lark", ""),
        ("d.py", "2"),
    ):
        (folder / name).write_text(content)
        found.append(digest())
    (folder / "d.py").rename(folder / "e.py")
    found.append(digest())
    assert len(set(found)) == len(found)
    (folder / "_compiled" / "x.py").write_text("3")
    (folder / "notes.txt").write_text("4")
    assert digest() == found[-1]
    compiler.compiler_digest.cache_clear()
