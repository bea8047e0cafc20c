from __future__ import annotations

from pathlib import Path

import pytest

import tinycore
from tinycore.config import override
from tinycore.errors import BackendUnavailable, PluginError
from tinycore.plugin.exports import ExportUnavailable, load_export
from tinycore.plugin.hooks import PluginWarning
from tinycore.plugin.registry import registry, reset
from tinycore.runtime import environment as runtime
from tinycore.runtime.environment import Environment, environment

SIM = """
api = "1.0"
[[backend]]
name = "SIM"
priority = {priority}
entry = "PACKAGE:open_device"
"""
SIM_CODE = "def open_device():\n    return 'the device'\n"


def test_backends_are_sorted_by_priority_and_opened_lazily(site):
    site.add("low", SIM.format(priority=1).replace("SIM", "LOW"), files={"__init__.py": SIM_CODE})
    site.add("high", SIM.format(priority=9), files={"__init__.py": SIM_CODE})
    found = environment()
    assert list(found.backends) == ["SIM", "LOW"]
    assert site.imported() == set()
    assert found.backends["SIM"].open() == "the device"
    assert site.imported() == {"site_high"}
    assert found.versions == (("thirdparty-high", "0.3.0"), ("thirdparty-low", "0.3.0"))
    assert environment() is found
    assert found.sources == (site.path / "site_high", site.path / "site_low")
    with pytest.raises(TypeError):
        found.backends["X"] = None


@pytest.mark.parametrize(
    "code",
    [
        "import nowhere_to_be_found",
        "raise OSError('libfoo.so')",
        "import sys; sys.exit(4)",
        "def open_devise(): pass",
        "x =",
    ],
    ids=["ImportError", "OSError", "SystemExit", "misspelled", "SyntaxError"],
)
def test_a_device_that_was_asked_for_says_which_plugin_failed(site, code):
    site.add("sim", SIM.format(priority=1), files={"__init__.py": code})
    with pytest.raises(BackendUnavailable) as caught:
        environment().backends["SIM"].open()
    message = str(caught.value)
    assert "device 'SIM' of plugin 'sim' (thirdparty-sim 0.3.0) cannot be used" in message
    assert "tinycore plugins disable sim" in message
    assert caught.value.__cause__ is not None


def test_a_plugin_may_say_itself_why_its_device_is_not_there(site):
    code = "from tinycore.errors import BackendUnavailable\n"
    code += "def open_device():\n    raise BackendUnavailable('no card')"
    site.add("sim", SIM.format(priority=1), files={"__init__.py": code})
    with pytest.raises(BackendUnavailable, match=r"^no card$"):
        environment().backends["SIM"].open()


def test_two_plugins_with_one_device_name_are_an_error_only_when_it_is_used(site):
    site.add("one", SIM.format(priority=1), files={"__init__.py": SIM_CODE})
    site.add("two", SIM.format(priority=2), files={"__init__.py": SIM_CODE})
    site.add("three", SIM.format(priority=3).replace("SIM", "OTHER"), files={"__init__.py": SIM_CODE})
    found = environment()
    assert found.backends["OTHER"].open() == "the device"
    with pytest.raises(PluginError, match=r"thirdparty-one 0\.3\.0.*thirdparty-two 0\.3\.0"):
        found.backends["SIM"].open()
    assert len(registry().clashes) == 1


def test_unusable_plugins_explain_their_missing_devices(site):
    site.add("sim", SIM.format(priority=1).replace("1.0", "2.0"))
    site.add("torn", "api =")
    with pytest.warns(PluginWarning, match="thirdparty-"):
        found = environment()
    assert "plugin API 2.0" in found.missing["SIM"]
    assert "not valid TOML" in found.missing["torn"]
    assert not found.backends


def test_a_compile_only_backend_does_not_open(site):
    manifest = 'api = "1.0"\n[[backend]]\nname = "SIM"\ncompile_target = "PACKAGE:target"'
    site.add("sim", manifest, files={"__init__.py": "def target(architecture): return ('SIM', architecture)"})
    spec = environment().backends["SIM"]
    assert spec.compile_only and spec.compile_target("v1") == ("SIM", "v1")
    with pytest.raises(BackendUnavailable, match="tinycore compile --target SIM"):
        spec.open()


PASS = '[[pass]]\nid = "{id}"\nstage = "late"\nentry = "PACKAGE:run"\n'


def test_passes_are_loaded_ordered_and_named_in_their_errors(site):
    code = "def run(graph, *context):\n    if graph is None: raise ValueError('broken graph')\n"
    code += "    return graph + ['{}']\n"
    site.add(
        "a", 'api = "1.0"\n' + PASS.format(id="a") + 'after = ["b"]', files={"__init__.py": code.format("a")}
    )
    site.add("b", 'api = "1.0"\n' + PASS.format(id="b"), files={"__init__.py": code.format("b")})
    assert environment().sources == (site.path / "site_a", site.path / "site_b")
    graph = []
    for spec in environment().passes_at("late"):
        graph = spec.run(graph)
    assert graph == ["b", "a"]
    with pytest.raises(ValueError, match="broken graph") as caught:
        environment().passes_at("late")[0].run(None)
    assert any("thirdparty-b 0.3.0" in note for note in caught.value.__notes__)


def test_code_that_can_change_no_kernel_is_not_in_the_keys_of_kernels(site):
    hooks = 'api = "1.0"\n[hooks]\nmodule = "PACKAGE"\nnames = ["{}"]\n'
    site.add("doctor", hooks.format("tinycore_doctor"))
    site.add("exports", 'api = "1.0"\n[exports]\nthing = "PACKAGE:thing"')
    site.add("library", 'api = "1.0"')
    site.add("passes", hooks.format("tinycore_passes"))
    assert environment().sources == (site.path / "site_library", site.path / "site_passes")


def test_a_pass_that_fails_to_load_is_left_out_with_those_that_require_it(site):
    site.add("bad", 'api = "1.0"\n' + PASS.format(id="bad"), files={"__init__.py": "1/0"})
    needs = 'requires = ["bad"]'
    site.add(
        "needy", 'api = "1.0"\n' + PASS.format(id="needy") + needs, files={"__init__.py": "def run(): ..."}
    )
    site.add("good", 'api = "1.0"\n' + PASS.format(id="good"), files={"__init__.py": "def run(): ..."})
    with pytest.warns(PluginWarning) as caught:
        assert [spec.id for spec in environment().passes_at("late")] == ["good"]
    assert len(caught) == 2
    failures = registry().failures
    assert "ZeroDivisionError" in failures["bad"][0]
    assert "it requires pass 'bad'" in failures["needy"][0]


def test_a_pass_that_results_depend_on_must_load(site):
    manifest = 'api = "1.0"\n' + PASS.format(id="bad") + "optional = false"
    site.add("bad", manifest, files={"__init__.py": "1/0"})
    with pytest.raises(PluginError, match=r"(?s)results depend on it.*thirdparty-bad"):
        environment()


def test_one_pass_id_in_two_plugins(site):
    for name in ("one", "two"):
        site.add(name, 'api = "1.0"\n' + PASS.format(id="same"), files={"__init__.py": "def run(): ..."})
    with pytest.raises(PluginError, match=r"pass 'same'.*thirdparty-one.*thirdparty-two"):
        environment()


def test_strict_mode_raises(site):
    site.add("bad", 'api = "1.0"\n' + PASS.format(id="bad"), files={"__init__.py": "1/0"})
    with override(strict_plugins=True), pytest.raises(PluginError, match="ZeroDivisionError"):
        environment()


def test_passes_are_shuffled_on_request(site):
    for name in "abcdef":
        site.add(name, 'api = "1.0"\n' + PASS.format(id=name), files={"__init__.py": "def run(): ..."})
    orders = set()
    for seed in range(6):
        reset()
        with override(shuffle_passes=seed):
            orders.add(tuple(spec.id for spec in environment().passes_at("late")))
    assert len(orders) > 3


def test_rule_files_keep_their_stage_and_get_their_plugins_name(site):
    manifest = 'api = "1.0"\n[[rules]]\nfile = "rules/x.rules"\nstage = "late"'
    site.add("sim", manifest, files={"rules/x.rules": "rules 1\n"})
    (source,) = environment().rules_at("late")
    assert source.group == "sim.x" and Path(source.path).read_text() == "rules 1\n"
    assert environment().rules_at("tile") == ()


def test_frontends(site):
    manifest = 'api = "1.0"\n[[frontend]]\nname = "csv"\nentry = "PACKAGE:load"\nsuffixes = [".csv"]'
    site.add("csv", manifest, files={"__init__.py": "def load(path, **options): return (path, options)"})
    spec = environment().frontends["csv"]
    assert site.imported() == set()
    assert spec.load("a.csv", sep=";") == ("a.csv", {"sep": ";"})


def test_a_plugin_that_uses_plugins_while_being_imported_is_told(site):
    code = "from tinycore.runtime.environment import environment\nenvironment()\ndef run(graph): ..."
    site.add("eager", 'api = "1.0"\n' + PASS.format(id="eager"), files={"__init__.py": code})
    with pytest.warns(PluginWarning, match="while it was being imported"):
        assert environment().passes_at("late") == ()
    assert environment() is environment()


def test_environment_can_be_overridden_in_a_block(site):
    with runtime.override_environment(Environment()) as other:
        assert environment() is other
    assert environment() is not other


# exports


def test_exports_import_only_their_plugin(site):
    site.add(
        "front",
        'api = "1.0"\n[exports]\nThing = "PACKAGE:Thing"\nsub = "PACKAGE.sub"',
        files={"__init__.py": "Thing = 5", "sub.py": "x = 6"},
    )
    site.add("other", 'api = "1.0"\n[exports]\nMore = "PACKAGE:More"', files={"__init__.py": "1/0"})
    assert load_export("Thing") == 5
    assert load_export("sub").x == 6
    assert site.imported() == {"site_front"}
    assert {"Thing", "sub", "More"} <= set(dir(tinycore))


def test_a_missing_frontend_says_what_to_install(site):
    with pytest.raises(ImportError, match="pip install tinycore-frontend-tensor"):
        load_export("Tensor")


def test_a_disabled_frontend_says_how_to_enable_it(site):
    site.add("front", 'api = "1.0"\n[exports]\nTensor = "PACKAGE:Tensor"')
    with override(disabled_plugins=("front",)):
        reset()
        with pytest.raises(ImportError, match="tinycore plugins enable front"):
            load_export("Tensor")


def test_a_broken_export_names_the_plugin(site):
    site.add("front", 'api = "1.0"\n[exports]\nTensor = "PACKAGE:Tensor"', files={"__init__.py": "1/0"})
    with pytest.raises(ExportUnavailable, match=r"(?s)ZeroDivisionError.*thirdparty-front"):
        load_export("Tensor")


def test_an_export_of_two_plugins(site):
    for name in ("one", "two"):
        site.add(
            name, 'api = "1.0"\n[exports]\nTensor = "PACKAGE:Tensor"', files={"__init__.py": "Tensor = 1"}
        )
    with pytest.raises(ExportUnavailable, match=r"(?s)thirdparty-one.*thirdparty-two.*disable two"):
        load_export("Tensor")


def test_a_misspelled_name(site):
    with pytest.raises(AttributeError, match="did you mean 'Tensor'"):
        load_export("Tenser")
    with pytest.raises(AttributeError):
        tinycore._private  # noqa: B018


# hooks

HOOKS = 'api = "1.0"\n[hooks]\nmodule = "PACKAGE.hooks"\nnames = {names}'


BACKEND_HOOK = """
from tinycore.plugin import BackendSpec, hookimpl
@hookimpl
def tinycore_backends():
    yield BackendSpec("{}", 1, open=int)
"""


def test_hooks_add_what_a_manifest_cannot_say(site):
    site.add(
        "gen",
        HOOKS.format(
            names='["tinycore_backends", "tinycore_passes", "tinycore_rules", "tinycore_frontends"]'
        ),
        files={
            "hooks.py": """
            from pathlib import Path
            from tinycore.plugin import BackendSpec, FrontendSpec, PassSpec, RuleSource, hookimpl

            @hookimpl
            def tinycore_backends():
                for index in range(2):
                    yield BackendSpec(f"GEN{index}", index, open=lambda index=index: index)

            @hookimpl
            def tinycore_passes():
                return [PassSpec("gen", "tile", run=lambda graph: graph)]

            @hookimpl
            def tinycore_rules():
                return [RuleSource(Path("x.rules"), "late", "gen")]

            @hookimpl
            def tinycore_frontends():
                return [FrontendSpec("gen", load=lambda path: path)]
            """
        },
    )
    found = environment()
    assert [found.backends[name].open() for name in ("GEN0", "GEN1")] == [0, 1]
    assert found.passes_at("tile")[0].run(3) == 3
    assert found.rules_at("late")[0].group == "gen"
    assert found.frontends["gen"].load("x") == "x"


def test_a_hook_module_is_imported_for_its_own_hooks_only(site):
    site.add("quiet", HOOKS.format(names='["tinycore_doctor"]'), files={"hooks.py": "1/0"})
    assert environment().observers == ()
    assert site.imported() == set()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def tinycore_backends():\n    raise ValueError('no')", "ValueError: no"),
        ("def tinycore_backends():\n    yield 3", "3 is not a BackendSpec"),
        ("def tinycore_backends():\n    yield\n    raise KeyError('late')", "KeyError"),
        ("def tinycore_backends(colour): ...", "colour"),
        ("def tinycore_backend(): ...", "did you mean 'tinycore_backends'?"),
    ],
)
def test_a_failing_hook_leaves_the_others_working(site, body, words):
    text = f"from tinycore.plugin import BackendSpec, hookimpl\n@hookimpl\n{body}\n"
    good = BACKEND_HOOK.format("GOOD")
    site.add("bad", HOOKS.format(names='["tinycore_backends"]'), files={"hooks.py": text})
    site.add("good", HOOKS.format(names='["tinycore_backends"]'), files={"hooks.py": good})
    with pytest.warns(PluginWarning, match="thirdparty-bad"):
        assert list(environment().backends) == ["GOOD"]
    assert any(words in reason for reason in registry().failures["bad"]), registry().failures


def test_without_a_manifest_the_package_is_imported_for_its_hooks(site):
    code = BACKEND_HOOK.format("BARE")
    site.add("bare", None, files={"__init__.py": code})
    assert list(environment().backends) == ["BARE"]


def test_device_selection_takes_the_first_sensible_answer(site):
    code = "from tinycore.plugin import hookimpl\n"
    code += "@hookimpl\ndef tinycore_select_device(available):\n    return {!r}"
    names = HOOKS.format(names='["tinycore_select_device"]')
    site.add("a-none", names, files={"hooks.py": code.format(None)})
    site.add("b-wrong", names, files={"hooks.py": code.format("ELSEWHERE")})
    site.add("c-right", names, files={"hooks.py": code.format("Y")})
    select = environment().select_device
    with pytest.warns(PluginWarning, match="'ELSEWHERE' is not available"):
        assert select(("X", "Y")) == "Y"
    with pytest.warns(PluginWarning, match="'Y' is not available"):
        assert select(("X",)) is None


def test_an_observer_that_raises_is_called_no_more(site):
    code = """
    from tinycore.plugin import hookimpl
    seen = []
    @hookimpl
    def tinycore_on_event(event):
        seen.append(event["kind"])
        if event["kind"] == "bad":
            raise RuntimeError("stop")
    """
    site.add("watch", HOOKS.format(names='["tinycore_on_event"]'), files={"hooks.py": code})
    (emit,) = environment().observers
    assert site.imported() == set()
    emit({"kind": "compile"})
    with pytest.warns(PluginWarning, match="RuntimeError: stop"):
        emit({"kind": "bad"})
    emit({"kind": "again"})
    import site_watch.hooks

    assert site_watch.hooks.seen == ["compile", "bad"]


def test_one_failure_is_told_once(site):
    code = "from tinycore.plugin import hookimpl\n"
    code += "@hookimpl\ndef tinycore_select_device(available):\n    raise OSError('no')"
    site.add("sad", HOOKS.format(names='["tinycore_select_device"]'), files={"hooks.py": code})
    select = environment().select_device
    with pytest.warns(PluginWarning) as caught:
        assert [select(("X",)), select(("X",))] == [None, None]
    assert len(caught) == 1
    assert len(registry().failures["sad"]) == 1
