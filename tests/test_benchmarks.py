"""The benchmark harness: rows are right, measuring is honest, failures stay in their cell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import cli, kits, limits, markdown, memory, micro, profiling, report, supervisor  # noqa: E402
from benchmarks.kits import NotSupported  # noqa: E402
from benchmarks.kits.numpy_kit import ArrayKit, erf  # noqa: E402
from benchmarks.limits import Limits  # noqa: E402
from benchmarks.model import SUITES, Cell, Result, Row  # noqa: E402
from benchmarks.rows import ROWS, select  # noqa: E402
from benchmarks.rows.convolution import conv_row  # noqa: E402
from benchmarks.rows.data import normal  # noqa: E402
from benchmarks.rows.graphs import chain, diamond, fanout  # noqa: E402
from benchmarks.rows.matmul import matmul_row  # noqa: E402
from benchmarks.rows.networks import Block, pre_norm  # noqa: E402
from benchmarks.runner import Options, error_of, judge, run_row  # noqa: E402

QUICK = Options(rounds=2, budget=1.0)


def small(**changes):
    options = {"arguments": normal((5, 7), (7, 3)), "compute": lambda kit, a, b: kit.matmul(a, b)}
    return Row(name="test.small", what="", suite="more", **{**options, **changes})


class Fake(ArrayKit):
    """numpy under another name, with something changed."""

    def __init__(self, name, change=lambda x: x, failure=None):
        super().__init__()
        self.name, self.change, self.failure, self.calls = name, change, failure, 0

    def matmul(self, a, b, **out):
        self.calls += 1
        if self.failure:
            raise self.failure
        return self.change(a @ b)


def test_numpy_and_tinycore_agree_and_every_cell_is_measured():
    found = run_row(small(), [kits.load("tinycore"), kits.load("numpy")], Options(rounds=3))
    assert [(cell.kit, cell.mode) for cell in found.cells] == [
        ("numpy", "fresh"),
        ("tinycore", "fresh"),
        ("tinycore", "reused"),
    ]
    for cell in found.cells:
        assert cell.failure is None and cell.right, cell
        assert len(cell.samples) == 3 and cell.best <= cell.median and cell.first > 0
        assert cell.error < 1e-6


def test_outputs_are_reused_where_a_row_says_how():
    row = small(into=lambda kit, out, a, b: kit.matmul(a, b, out=out))
    found = run_row(row, [kits.load("numpy")], QUICK)
    assert found.cell("numpy", "reused").right


def test_a_wrong_result_is_named_and_has_no_ratio():
    wrong = Fake("tinycore", lambda x: x + 0.01)
    found = run_row(small(kits=("tinycore", "numpy")), [wrong, kits.load("numpy")], QUICK)
    assert found.cell("tinycore", "fresh").right is False and found.cell("numpy", "fresh").right
    assert found.ratio("fresh") is None
    assert any("error" in line for line in report.notes([found]))


def test_the_bound_is_what_the_peers_meet():
    result = Result.of(small())
    result.cells = [Cell("tinycore", "fresh", error=5e-5), Cell("numpy", "fresh", error=1e-6)]
    judge(result, small(tolerance=1e-4))
    assert result.bound == pytest.approx(4e-6) and result.cells[0].right is False
    result.cells[1].error = 1.0  # a broken peer does not forgive us anything
    judge(result, small(tolerance=1e-4))
    assert result.bound == 1e-4 and result.cells[1].right is False
    result.cells.append(Cell("torch", "fresh", error=2e-6))
    judge(result, small(tolerance=1e-4))
    assert result.bound == pytest.approx(8e-6)


def test_a_later_call_that_goes_wrong_is_found():
    class Drifts(Fake):
        def matmul(self, a, b, **out):
            self.calls += 1
            return a @ b + (self.calls > 3)

    found = run_row(small(kits=("torch",)), [Drifts("torch")], QUICK)
    assert found.cell("torch", "fresh").right is False


def test_a_failure_stays_in_its_cell_and_unsupported_is_blank():
    failing, unable = Fake("torch", failure=ValueError("broken")), Fake("jax", failure=NotSupported())
    found = run_row(small(), [failing, unable, kits.load("numpy")], QUICK)
    assert found.cell("torch", "fresh").failure == "ValueError: broken"
    assert found.cell("jax", "fresh") is None
    assert found.cell("numpy", "fresh").right
    assert found.ratio("fresh") is None


def test_a_library_that_cannot_be_loaded_is_a_failed_cell_of_the_rows_that_want_it():
    found = run_row(
        small(kits=("torch", "numpy")), [ArrayKit()], QUICK, broken={"torch": "E: no", "jax": "E"}
    )
    assert found.cell("torch", "fresh").failure == "E: no" and found.cell("jax", "fresh") is None


def test_rounds_are_interleaved():
    order = []

    class Notes(Fake):
        def matmul(self, a, b, **out):
            order.append(self.name)
            import time

            time.sleep(0.03)  # longer than a round: one call a sample
            return a @ b

    run_row(small(kits=("torch", "jax")), [Notes("torch"), Notes("jax")], Options(rounds=4))
    steady = order[8:]  # a first call and three warm-up calls each
    rounds = [steady[k : k + 6] for k in range(0, len(steady), 6)]
    assert len(rounds) == 4 and all(set(part) == {"torch", "jax"} for part in rounds)


def test_a_used_up_budget_ends_the_rounds_but_not_before_one():
    found = run_row(small(), [kits.load("numpy")], Options(rounds=5, budget=0.0))
    assert len(found.cells[0].samples) == 1


def test_every_step_is_emitted():
    seen = []
    run_row(small(), [kits.load("numpy")], QUICK, lambda result: seen.append(len(result.cells)))
    assert seen[0] >= 1 and len(seen) >= QUICK.rounds + 2


@pytest.mark.parametrize("found, error", [([1.0, 2.1], 0.05), ([1.0], np.inf), ([1.0, np.nan], np.inf)])
def test_error(found, error):
    got = error_of(np.array(found), np.array([1.0, 2.0]))
    assert got == pytest.approx(error)


def test_ratio_takes_the_best_peer_and_fresh_where_it_cannot_reuse():
    result = Result.of(small())
    result.cells = [
        Cell("tinycore", "reused", samples=[2.0, 4.0, 3.0]),
        Cell("numpy", "fresh", samples=[2.0]),
        Cell("torch", "fresh", samples=[1.0]),
        Cell("torch", "reused", samples=[6.0]),
    ]
    assert result.ratio("reused") == 3.0 / 2.0
    assert result.ratio("fresh") is None
    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8"])
def test_small_matmul_of_other_dtypes(dtype):
    row = matmul_row("test.dtype", "more", 9, 16, 11, dtype)
    found = run_row(row, [kits.load("numpy"), kits.load("tinycore")], Options(rounds=1))
    assert all(cell.right for cell in found.cells), found.cells


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"groups": 4}])
def test_small_convolution(options):
    row = conv_row("test.conv", "more", (2, 4, 9, 7), 4, 3, **options)
    found = run_row(row, [kits.load("numpy"), kits.load("tinycore")], Options(rounds=1))
    assert all(cell.right for cell in found.cells), found.cells


def test_small_transformer_block_with_a_model():
    row = small(
        arguments=normal((2, 5, 8)), compute=pre_norm, model=lambda kit: Block(kit, 8, 2, 16), fresh=False
    )
    found = run_row(row, [kits.load("numpy"), kits.load("tinycore")], Options(rounds=1))
    assert len(found.cells) == 2 and all(cell.right for cell in found.cells), found.cells


@pytest.mark.parametrize("make", [chain, fanout, diamond])
def test_graphs_have_the_size_that_they_say(make):
    count = 0

    class Counted:
        def __add__(self, other):
            nonlocal count
            count += 1
            return self

        __mul__ = __add__

    def relu(x):
        return x + 0

    make(300)(SimpleNamespace(relu=relu), Counted())
    assert 280 <= count <= 400


def test_the_hand_written_gradients_are_right():
    from benchmarks.rows import training

    generator = np.random.default_rng(3)

    def layer(*shape):
        return SimpleNamespace(weight=generator.standard_normal(shape) * 0.3, bias=np.zeros(shape[0]))

    model = SimpleNamespace(
        first=layer(3, 1, 3, 3), second=layer(4, 3, 3, 3), hidden=layer(6, 4 * 2 * 2), out=layer(5, 6)
    )
    images, labels = generator.standard_normal((3, 1, 8, 8)), np.array([0, 4, 2])

    def copy():
        return SimpleNamespace(
            **{n: SimpleNamespace(weight=v.weight.copy(), bias=v.bias.copy()) for n, v in vars(model).items()}
        )

    stepped = copy()
    training.small_cnn_losses(None, stepped, images, labels)
    for name in ("first", "second", "hidden", "out"):
        for attribute in ("weight", "bias"):
            place = (0,) * getattr(model, name).weight.ndim if attribute == "weight" else (1,)
            losses = []
            for step in (1e-5, -1e-5):
                moved = copy()
                getattr(getattr(moved, name), attribute)[place] += step
                losses.append(float(training.small_cnn_losses(None, moved, images, labels)))
            expected = (losses[0] - losses[1]) / 2e-5
            before, after = (getattr(getattr(m, name), attribute)[place] for m in (model, stepped))
            assert (before - after) / training.RATE == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_erf():
    assert np.allclose(erf(np.array([0.0, 0.5, -1.0])), [0, 0.5204998778, -0.8427007929])


def test_rows_are_well_formed():
    assert {row.suite for row in ROWS.values()} == set(SUITES) - {"micro"}
    for row in ROWS.values():
        assert "tinycore" in row.kits and set(row.kits) <= set(kits.NAMES), row.name
        assert row.what


def test_selection():
    names = [row.name for row in select(["matmul"], ())]
    assert "matmul.512" in names and not any(name.startswith("sweep") for name in names)
    assert [row.name for row in select(["sweep.*.64"], ())] == ["sweep.matmul.64"]
    assert {row.suite for row in select([], ["design"])} == {"design"}
    with pytest.raises(KeyError, match="nothing"):
        select(["matmul", "nothing"], ())


def test_a_worker_runs_in_its_own_process():
    found = supervisor.measure(ROWS["compile.chain.10"], ["tinycore", "numpy"], QUICK, 60)
    assert found.failure is None and {cell.kit for cell in found.cells} == {"numpy", "tinycore"}
    assert all(cell.right for cell in found.cells)
    if memory.resident() is not None:
        assert all(cell.peak_bytes > 1 << 20 and cell.grown_bytes >= 0 for cell in found.cells)


def test_what_a_dying_worker_printed_is_kept():
    row = ROWS["matmul.512"]
    line = json.dumps(run_row(small(), [kits.load("numpy")], QUICK).as_json())
    crashed = supervisor.collect(row, line + '\n{"name": "ma', "", -11, 1.0)
    assert crashed.failure == "killed by SIGSEGV" and crashed.cells[0].right
    assert supervisor.collect(row, "", "", None, 7.0).failure == "timeout after 7 s"
    assert "boom" in supervisor.collect(row, "", "Traceback\nboom\n", 1, 1.0).failure


def test_a_timeout_ends_the_worker():
    found = supervisor.measure(ROWS["matmul.512"], ["numpy"], QUICK, 0.05)
    assert found.failure.startswith("timeout")


def test_tables_json_and_slopes(tmp_path, capsys):
    result = run_row(small(), [kits.load("numpy"), kits.load("tinycore")], QUICK)
    sweep = [
        Result(f"sweep.x.{n}", "", "sweep", n, cells=[Cell("numpy", "fresh", samples=[n**2 * 1e-6])])
        for n in (10, 100, 1000)
    ]
    report.show([result, *sweep], ["tinycore", "numpy", "torch"])
    text = capsys.readouterr().out
    assert "test.small" in text and "torch" in text and "size^2.00" in text
    report.save_json([result], tmp_path / "out.json")
    loaded = json.loads((tmp_path / "out.json").read_text())
    assert Result.from_json(loaded["rows"][0]) == result and loaded["machine"]["cores"]


def test_command_line(capsys):
    assert cli.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "resnet50.1" in listed and "intern" in listed
    for wrong in (["nothing"], ["--peers", "numpyy"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(wrong)
        assert stopped.value.code == 2


def test_a_small_decoder_and_a_position_that_no_program_is_tied_to(monkeypatch):
    from benchmarks.model import Position
    from benchmarks.rows import networks

    for name, value in (("GPT_LAYERS", 1), ("GPT_WIDTH", 8), ("GPT_HEADS", 2), ("GPT_CACHE", 16)):
        monkeypatch.setattr(networks, name, value)

    def arguments(generator):
        caches = [generator.standard_normal((1, 2, 16, 4), np.float32) for _ in range(2)]
        return np.array([[7]]), Position(5, 15), *caches

    row = small(
        arguments=arguments, compute=networks.gpt2_decode, model=networks.Gpt2, fresh=False, tolerance=1e-5
    )
    found = run_row(row, [kits.load("numpy"), kits.load("tinycore")], Options(rounds=1))
    assert len(found.cells) == 2 and all(cell.right for cell in found.cells), found.cells


# --- limits, memory, neighbours, profiles -----------------------------------------------------------------------


def test_limits_are_those_of_a_machine():
    found = limits.measure(0.05)
    if found is None:
        pytest.skip("no CPU backend")
    assert 1e8 < found.operations < 1e14 and 1e7 < found.bandwidth < 1e13
    assert "GFLOP/s" in limits.describe(found)


def test_a_roofline_is_what_binds():
    most = Limits(operations=100.0, bandwidth=10.0)
    assert most.seconds(200.0, 10.0) == 2.0 and most.seconds(200.0, 50.0) == 5.0
    assert most.seconds(200.0, 0.0, width=8) == 4.0 and most.seconds(200.0, 0.0, width=2) == 2.0
    assert most.seconds(0.0, 0.0) is None
    result = Result("x", "", "more", operations=200.0, traffic=10.0)
    result.cells = [Cell("tinycore", "fresh", samples=[8.0, 4.0])]
    assert report.of_limit(result, "fresh", most) == "50 %"
    assert report.of_limit(result, "reused", most) == report.of_limit(result, "fresh", None) == ""


def test_memory_of_a_block_is_seen():
    script = """if True:
        from benchmarks import memory
        with memory.peak() as nothing:
            pass
        with memory.peak() as large:
            block = bytearray(b"x") * (50 << 20)
            del block
        print(nothing.grown or 0, large.grown or 0, large.total or 0)"""
    # In a process of its own: here other memory may be given back meanwhile.
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    nothing, grown, total = map(int, answer.stdout.split())
    if memory.resident() is None or not total:
        pytest.skip("this system does not tell, or does not forget peaks")
    assert grown > 45 << 20 > nothing and total > grown


def test_neighbours_name_the_row_that_they_are_near():
    near = select([], ["neighbours"])
    assert len(near) >= 30 and all(row.suite == "neighbours" for row in near)
    for row in near:
        base = ROWS[row.near]
        assert base.suite in ("design", "more") and row.kits == base.kits and row.tolerance == base.tolerance
        work, of_base = row.operations or row.traffic, base.operations or base.traffic
        assert work > 0 and 0.001 < work / of_base < 20, row.name
        assert bool(row.operations) == bool(base.operations)


def test_what_neighbours_keep_is_told():
    most = Limits(operations=2.0 * 512**3, bandwidth=1e30)
    near = Result("near.row", "", "neighbours", operations=0.9 * most.operations, near="matmul.512")
    near.cells = [Cell("tinycore", "fresh", samples=[1.5]), Cell("tinycore", "base", samples=[1.0, 2.0])]
    assert report.kept([near], most) == ["near.row keeps 60 % of matmul.512  less than aimed at"]
    near.cells[0].samples = [1.0]
    assert report.kept([near], most) == ["near.row keeps 90 % of matmul.512"]
    assert report.kept([near], None) == []
    del near.cells[1]
    assert report.kept([near], most) == []


def test_a_neighbour_is_measured_in_turns_with_its_row():
    base = small(arguments=normal((6, 7), (7, 3)))
    found = run_row(small(near="base"), [kits.load("tinycore"), kits.load("numpy")], QUICK, base=base)
    cell = found.cell("tinycore", "base")
    assert len(cell.samples) == QUICK.rounds and cell.error is None and cell.right is None
    assert found.cell("numpy", "base") is None
    assert [c.mode for c in found.cells if c.kit == "tinycore"] == ["fresh", "reused", "base"]


def test_a_profile_has_the_kernels_of_a_row():
    from benchmarks.rows.networks import Mlp, mlp

    row = small(arguments=normal((8, 784)), compute=mlp, model=Mlp, operations=1.0)
    places = profiling.profile(row, rounds=2)
    assert len(places) >= 3 and all(place.seconds > 0 for place in places)
    assert sum(place.operations for place in places) > 2 * 8 * 784 * 512
    made = profiling.table(row, places, Limits(1e12, 1e12))
    assert made.row_count == len(places) and "kernels" in str(made.title)


def test_a_profile_of_nothing_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--profile", "nothing"])
    assert stopped.value.code == 2 and "there is no row" in capsys.readouterr().err


def test_every_script_exists():
    for name in micro.SCRIPTS:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


def test_a_plot_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    result = run_row(small(), [kits.load("numpy"), kits.load("tinycore")], QUICK)
    sweep = [
        Result(f"sweep.x.{n}", "", "sweep", n, cells=[Cell("numpy", "fresh", samples=[n * 1e-6])])
        for n in (10, 100, 1000)
    ]
    assert report.save_plot([result, *sweep], ["tinycore", "numpy"], tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_a_page_tells_who_is_best_in_which_mode():
    result = Result("a", "x | y", "design", operations=1e6)
    result.cells += [Cell("tinycore", "reused", samples=[2e-3]), Cell("tinycore", "fresh", samples=[3e-3])]
    result.cells += [Cell("numpy", "fresh", samples=[4e-3]), Cell("numpy", "reused", samples=[2.5e-3])]
    result.cells += [
        Cell("torch", "fresh", samples=[1e-3], right=False),
        Cell("jax", "fresh", samples=[2e-3]),
    ]
    text = markdown.page([result], "the command", Limits(1e9, 1e9))
    (row,) = [line for line in text.splitlines() if line.startswith("| a |")]
    assert row == ("| a | x \\| y | 2.00 ms | 2.00 ms jax | 1.00 | 3.00 ms | 2.00 ms jax | 1.50 | 50 % |")
    assert "`the command`" in text and "torch (fresh)" in text, "a wrong result is told"


def test_commands_of_the_performance_page_are_right():
    import re
    import shlex

    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 dev\.py bench(.*?)(?:\s#.*)?$", text, re.M)
    assert len(commands) >= 6
    for command in commands:
        options = cli.parser().parse_args(shlex.split(command))
        names = [name for name in options.names if name not in micro.SCRIPTS]
        assert select(names, options.suite or cli.MAIN_SUITES)
        assert options.profile is None or options.profile in ROWS
