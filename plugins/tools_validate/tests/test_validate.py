"""TINYCORE_VALIDATE=1 finds a wrong rule at every stage, names it, and accuses no right one."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
from tinycore_tools_validate import launches as validation
from tinycore_tools_validate import samples
from tinycore_tools_validate.passes import PROGRAM_STEPS, Validator, steps_of
from tinycore_tools_validate.samples import Precision, difference, draw

from tinycore import Tensor, extra_rules
from tinycore.codegen import pipeline
from tinycore.config import override
from tinycore.errors import BackendUnavailable, PluginError, RuleError, ValidationError
from tinycore.interpret import interpret
from tinycore.ir import UOp, dtypes, ops
from tinycore.rules import load_file
from tinycore.runtime.compiler import forget_loaded
from tinycore.runtime.devices import default_device, device_names
from tinycore.runtime.environment import PassSpec, environment, override_environment
from tinycore.runtime.reference import REFERENCE

preparing = importlib.import_module("tinycore.schedule.prepare")  # the package has a function of that name
RNG = np.random.default_rng(3)


def numbers(*shape):
    return Tensor(RNG.standard_normal(shape).astype("float32"))


@pytest.fixture(autouse=True)
def validating():
    if default_device() == REFERENCE:
        pytest.skip("no device compiles here")
    forget_loaded()
    with override(validate=True, cache=False):
        yield
    forget_loaded()


def planted(tmp_path, text):
    path = tmp_path / "planted.rules"
    path.write_text(text)
    return extra_rules(path)


# --- wrong rules, each with an expression that it spoils --------------------------------------------------

WRONG = {
    "tensor": ("", "twice: EXP(x) => EXP(x * 2)", lambda: numbers(20, 3).exp() + 1),
    "tensor, a reduction": (
        "",
        "mean: REDUCE[ADD, a](x) => REDUCE[MAX, a](x)",
        lambda: numbers(20, 3).sum(dim=1),
    ),
    "tensor, a movement": (
        "",
        "flip: PERMUTE[p](x) if x.shape[0] == x.shape[1] and len(p) == 2 => x",
        lambda: numbers(5, 5).permute(1, 0) + 1,
    ),
    "kernel, arithmetic": (
        "@stage(kernel)",
        "swap: x:Float - y => y - x",
        lambda: numbers(20, 3) - numbers(20, 1),
    ),
    "kernel, an address": (
        "@stage(kernel)",
        "shift: LOAD[n](p, i:index + $c, g) if c > 0 => LOAD[n](p, i, g)",
        lambda: numbers(20, 3)[1:, 1:] + 1,
    ),
    "kernel, index arithmetic": (
        "@stage(kernel)",
        "floor: x:index // $c if c > 1 => x // (c + 1)",
        lambda: numbers(2, 10, 3).permute(1, 0, 2).reshape(-1)[3:].reshape(19, 3) * 2,
    ),
    "kernel, inside a sum": (
        "@stage(kernel)",
        "product: x:Float * y => x * (y + 1)",
        lambda: (numbers(8, 9) @ numbers(9, 7)) + 1,
    ),
    "kernel, a guard": (
        "@stage(kernel)",
        "unguarded: LOAD[n](p, i, g) if not g.is_const => LOAD[n](p, i, true)",
        lambda: numbers(4, 4).pad(((1, 1), (0, 0))) + 1,
    ),
    "late": (
        "@stage(late)",
        "choice: WHERE(c, x:Float, y) => WHERE(c, y, x)",
        lambda: numbers(20, 3).relu() + 1,
    ),
    "late, an edge": (
        "@stage(late)",
        "strict: x:Float < y => x <= y",
        lambda: (numbers(9, 9) > numbers(9, 9).round()) * 1.0,
    ),
    "late, the sign of a zero": ("@stage(late)", "zero: -(x:Float) => 0 - x", lambda: -numbers(9, 9)),
    "program": ("@stage(program)", "minus: x:Float + y => x - y", lambda: numbers(9, 9) + numbers(9, 9)),
}


RIGHT_RULES = "group right(bottom_up) { right_add: x:Float + y => y + x\n right_mul: x:Float * y => y * x }"
"""Rules that fire in the same pass and are innocent."""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_rule_is_caught_and_named(case, tmp_path):
    where, rule, expression = WRONG[case]
    text = f"group wrong(bottom_up) {where} {{\n  {rule}\n}}\n{RIGHT_RULES}\n"
    text += "pass planted = bottom_up(wrong + right)\n"
    lazy = expression() * 3.0
    with planted(tmp_path, text), pytest.raises(ValidationError) as caught:
        lazy.numpy()
    name = rule.partition(":")[0]
    assert "'planted' changed the meaning" in caught.value.what
    assert f"{name} ({tmp_path}/planted.rules:2)" in str(caught.value)
    if case == "program":  # parts of a program have no meaning by themselves: all that fired are named
        assert "one of: " in str(caught.value)
    else:
        assert "right_" not in str(caught.value)


def test_a_wrong_rule_of_the_core_is_caught_and_named(tmp_path, monkeypatch):
    path = tmp_path / "algebra.rules"
    path.write_text(
        "group algebra(fixpoint) {\n  lost_sign: x:Float * -1 => x\n}\npass simplify = fixpoint(algebra)\n"
    )
    wrong = load_file(path).passes["simplify"]
    real = pipeline._rules
    monkeypatch.setattr(
        pipeline, "_rules", lambda module, name: wrong if name == "simplify" else real(module, name)
    )
    monkeypatch.setattr(preparing, "_simplify", lambda: lambda sink, context: sink)
    lazy = numbers(7, 3) * -1.0
    with pytest.raises(ValidationError, match=r"(?s)'simplify'.*lost_sign \(.*algebra.rules:2\)"):
        lazy.numpy()


def test_a_wrong_rule_in_the_core_s_tensor_pass_is_caught_and_named(tmp_path, monkeypatch):
    path = tmp_path / "prepare.rules"
    path.write_text("group mine(fixpoint) {\n  half: x:Float + x => x\n}\npass prepare = fixpoint(mine)\n")
    wrong = load_file(path).passes["prepare"]
    monkeypatch.setattr(preparing, "_simplify", lambda: wrong)
    x = numbers(4, 4)
    with pytest.raises(ValidationError, match=r"(?s)'prepare'.*a tensor graph.*half \(.*prepare.rules:2\)"):
        (x + x).numpy()


def test_a_rule_that_changes_a_shape_is_named(tmp_path):
    text = "group planted(bottom_up) { grows: EXP(x) => RESHAPE[(6,)](EXP(x)) }"
    lazy = numbers(2, 3).exp()
    with planted(tmp_path, text), pytest.raises(RuleError, match="grows changes the shape from"):
        lazy.numpy()


def test_a_rule_that_says_it_is_inexact_may_be(tmp_path):
    text = """
    group planted(bottom_up) @stage(kernel) {
      other_order: (x:Float + y) + z => x + (y + z)   @fast(reassoc)
    }
    pass fast = bottom_up(planted) @accept(fast)
    """

    def lazy():
        return numbers(40, 40) + numbers(40, 40) * 1e4 + numbers(40, 40)

    with planted(tmp_path, text):
        lazy().numpy()
    text = text.replace("(y + z)", "(y - z)")
    with planted(tmp_path, text), pytest.raises(ValidationError, match="other_order"):
        lazy().numpy()


def test_a_wrong_pass_in_python_is_caught_and_named():
    def swap(kernel, context):
        mapping = {n: n.replace(src=n.src[::-1]) for n in kernel.toposort() if n.op is ops.SUB}
        return kernel.substitute(mapping)

    known = environment()
    passes = {**known.passes, "late": (PassSpec("swap", "late", swap),)}
    changed = replace(known, passes=passes)
    lazy = numbers(4, 4) - numbers(4, 4)
    with override_environment(changed), pytest.raises(ValidationError, match="'swap' changed the meaning"):
        lazy.numpy()


def test_without_a_plugin_that_checks_nothing_runs_unchecked():
    lazy = numbers(3, 5) - numbers(3, 5)
    with (
        override_environment(replace(environment(), validation=None)),
        pytest.raises(PluginError, match="pip install tinycore-tools-validate"),
    ):
        lazy.numpy()


def test_wrong_code_is_caught_at_the_first_launch(monkeypatch):
    """What comes after the passes is checked by comparing what was computed."""
    monkeypatch.setattr(validation, "_checked", set())
    original = validation.interpret_kernel

    def wrong(kernel, arrays, bindings):
        original(kernel, arrays, bindings)
        arrays[0][0] += 1

    monkeypatch.setattr(validation, "interpret_kernel", wrong)
    with pytest.raises(
        ValidationError, match="computed something else than the interpreter: buffer 0, element 0"
    ):
        (numbers(4, 4) + 1).numpy()


# --- right programs ---------------------------------------------------------------------------------------

RIGHT = {
    "softmax": lambda: numbers(6, 11).softmax(1),
    "matmul": lambda: numbers(17, 9) @ numbers(9, 13),
    "convolution": lambda: numbers(2, 3, 8, 8).conv2d(numbers(4, 3, 3, 3), padding=1).relu(),
    "logarithms of anything": lambda: numbers(40, 5).log() + numbers(40, 1).sqrt(),
    "integers": lambda: Tensor(np.arange(60, dtype="int32")).reshape(6, 10) // 7 % 4,
    "gather": lambda: numbers(9, 4)[Tensor(np.array([3, 1, 8], "int32"))],
    "cumulative": lambda: numbers(5, 6).cumsum(1),
    "half": lambda: numbers(8, 9).half() @ numbers(9, 5).half(),
    "sums that cancel": lambda: (lambda x: (x - x.mean(1, keepdim=True)).sum(1))(numbers(40, 50)),
    "large": lambda: numbers(300, 400).exp().sum(dim=1),
}


@pytest.mark.parametrize("device", [name for name in device_names() if name != REFERENCE])
@pytest.mark.parametrize("case", RIGHT)
def test_no_right_program_is_accused(case, device):
    from tinycore.runtime.devices import get_device

    try:
        get_device(device)
    except BackendUnavailable as error:
        pytest.skip(f"{device}: {error.what}")
    with override(device=device):
        RIGHT[case]().numpy()


def test_what_was_checked_and_what_was_skipped():
    from tinycore.codegen.compile import lower
    from tinycore.runtime.devices import get_device
    from tinycore.runtime.joined import joined

    target = get_device(default_device()).target

    def checked(size):
        x, y = (UOp(ops.PARAM, dtypes.float32, (), (slot, (size,))) for slot in (0, 1))
        validator = Validator(target)
        kernel = UOp(ops.SINK, dtypes.void, (UOp(ops.ASSIGN, dtypes.float32, (x, x, y + 1.0)),))
        lower(kernel, target, joined().doors, (validator,))
        return validator

    small = checked(100)
    assert small.checked >= 3 and not small.skipped
    huge = checked(samples.LARGEST)
    assert huge.checked == 0 and "indexing: too large to interpret" in huge.skipped


def test_steps_count_loops_and_not_the_grid():
    def loop(number, bound, kind="loop"):
        return UOp(ops.RANGE, dtypes.int32, (UOp.const(dtypes.int32, bound),), (number, kind))

    outer, inner, grid = loop(0, 10), loop(1, 1000), loop(2, 7, "global")
    ends = [UOp(ops.END, dtypes.void, (each,)) for each in (inner, outer)]
    linear = UOp(ops.LINEAR, dtypes.void, (grid, outer, inner, *ends))
    assert PROGRAM_STEPS > 10_000 >= steps_of(linear, {}) - 1000 > 9000


# --- samples ----------------------------------------------------------------------------------------------


def buffer(number, *shape, dtype=dtypes.float32):
    return UOp(ops.BUFFER, dtype, (), (number, shape, "X"))


def test_sums_of_whole_numbers_are_compared_exactly():
    x = buffer(-1, 50, 60)
    total = UOp(ops.REDUCE, dtypes.float32, (x * 3.0,), (ops.ADD, (1,)))
    sample = draw([total], total.toposort(), "seed")
    assert sample.whole
    assert set(np.unique(sample.inputs[x])) == {-3, -2, -1, 0, 1, 2, 3}
    (found,) = interpret([total], sample.inputs)
    assert (found == np.round(found)).all()
    third = UOp(ops.REDUCE, dtypes.float32, (x * 0.1,), (ops.ADD, (1,)))
    assert not draw([third], third.toposort(), "seed").whole
    half = UOp(ops.REDUCE, dtypes.float16, (buffer(-2, 5000, dtype=dtypes.float16),), (ops.ADD, (0,)))
    assert not draw([half], half.toposort(), "seed").whole


def test_samples_hold_what_floats_are_odd_about():
    x = buffer(-1, 100)
    values = draw([x + 1.0], (x + 1.0).toposort(), "seed").inputs[x]
    assert np.isnan(values).any() and np.isinf(values).sum() == 2 and (values == 0).sum() >= 2
    positive = draw([x], [x], "seed", positive=True).inputs[x]
    assert (positive[~np.isnan(positive)] > 0).all()


def test_symbolic_dimensions_get_values_within_their_limits():
    n = UOp.variable("n", 2, 64, 8)
    x = buffer(-1, n, 3)
    sample = draw([x + 1.0], (x + 1.0).toposort(), "seed")
    assert sample.bindings == {n: 8}
    assert sample.inputs[x].size == 24


@pytest.mark.parametrize(
    "expected, found, wanted, equal",
    [
        ([1.0, np.nan], [1.0, -np.nan], Precision.EXACT, True),
        ([0.0], [-0.0], Precision.EXACT, False),
        ([0.0], [-0.0], Precision.UNSIGNED, True),
        ([1.0], [1.0 + 1e-6], Precision.EXACT, False),
        ([1.0], [1.0 + 1e-6], Precision.APPROXIMATE, True),
        ([1.0], [1.0 + 1e-4], Precision.APPROXIMATE, False),
        ([1000.0, 1.0], [1000.0, 1.1], Precision.REORDERED, True),
        ([1000.0, 1.0], [1001.0, 1.0], Precision.REORDERED, False),
        ([np.inf], [3e38], Precision.REORDERED, False),
        ([np.nan], [1.0], Precision.REORDERED, False),
    ],
)
def test_difference(expected, found, wanted, equal):
    what = difference(np.array(expected, "float32"), np.array(found, "float32"), wanted)
    assert (what == "") is equal
