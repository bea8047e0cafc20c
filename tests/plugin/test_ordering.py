from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycore.errors import PluginError
from tinycore.plugin.ordering import OwnedPass, order_passes, resolve_requirements
from tinycore.runtime.environment import PassSpec


def make(name, stage="late", **options):
    return OwnedPass(PassSpec(name, stage, run=print, **options), f"plugin {name!r}")


def order(*passes, **options):
    return [spec.id for spec in order_passes(passes, **options)["late"]]


def test_ties_go_by_id_whatever_the_order_of_discovery():
    assert order(make("c"), make("a"), make("b")) == ["a", "b", "c"]


def test_before_and_after_are_soft():
    assert order(make("a", after=("z", "absent")), make("z", before=("gone",))) == ["z", "a"]


def test_a_required_pass_comes_first():
    assert order(make("a", requires=("b",)), make("b")) == ["b", "a"]


def test_order_is_within_a_stage_only():
    found = order_passes([make("a", after=("b",)), make("b", stage="program")])
    assert {stage: [spec.id for spec in specs] for stage, specs in found.items()} == {
        "late": ["a"],
        "program": ["b"],
    }


def test_a_cycle_names_the_passes_and_the_plugins():
    with pytest.raises(PluginError) as caught:
        order(
            make("a", before=("b",)),
            make("b", before=("c",)),
            make("c", before=("a",)),
            make("d", after=("a",)),
        )
    message = str(caught.value)
    assert "a -> b -> c -> a" in message
    for name in "abc":
        assert f"plugin '{name}'" in message
    assert "plugin 'd'" not in message


def test_requirements_cascade():
    kept, left_out = resolve_requirements(
        [make("a", requires=("b",)), make("b", requires=("no",)), make("c")]
    )
    assert [each.spec.id for each in kept] == ["c"]
    assert "'no', which is not installed" in left_out["b"]
    assert "'b', which was left out" in left_out["a"]


def test_shuffling_reaches_other_orders_and_is_reproducible():
    passes = [make(name) for name in "abcde"]
    orders = {tuple(order(*passes, shuffle=seed)) for seed in range(20)}
    assert len(orders) > 10
    assert order(*passes, shuffle=3) == order(*passes, shuffle=3)


@settings(deadline=None)
@given(st.data())
def test_every_declared_order_is_kept(data):
    names = [f"p{index}" for index in range(data.draw(st.integers(1, 8)))]
    ranks = data.draw(st.permutations(names))
    pairs = [(ranks[i], ranks[j]) for i in range(len(ranks)) for j in range(i + 1, len(ranks))]
    edges = [edge for edge in pairs if data.draw(st.booleans())]
    passes = [make(n, before=tuple(b for a, b in edges if a == n)) for n in names]
    random.Random(0).shuffle(passes)
    shuffle = data.draw(st.none() | st.integers(0, 5))
    found = order(*passes, shuffle=shuffle)
    assert sorted(found) == sorted(names)
    for first, second in edges:
        assert found.index(first) < found.index(second)
