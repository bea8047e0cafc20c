from __future__ import annotations

import pytest

from tinycore.config import override
from tinycore.errors import ConfigError
from tinycore.plugin import settings
from tinycore.plugin.discover import discover
from tinycore.plugin.registry import reset

BACKEND = """
api = "1.0"
uop_spec = 1
[[backend]]
name = "SIM"
entry = "PACKAGE:open_device"
"""


def by_id():
    return {plugin.id: plugin for plugin in discover()}


def test_manifests_are_read_without_importing_anything(site):
    site.add("sim", BACKEND, files={"__init__.py": "raise RuntimeError('imported')"})
    plugin = by_id()["sim"]
    assert plugin.usable and plugin.manifest.backends[0].name == "SIM"
    assert (plugin.distribution, plugin.version) == ("thirdparty-sim", "0.3.0")
    assert site.imported() == set()


@pytest.mark.parametrize(
    ("manifest", "reason", "hint"),
    [
        (
            'api = "9.0"',
            "built for plugin API 9.0, and this tinycore has 1.0",
            "pip install --upgrade tinycore",
        ),
        ('api = "1.7"', "built for plugin API 1.7", "pip install --upgrade tinycore"),
        ('api = "0.9"', "built for plugin API 0.9", "pip install --upgrade thirdparty-sim"),
        ('api = "1.0"\nuop_spec = 7', "UOp specification 7", "pip install --upgrade tinycore"),
        ('api = "1.0"\nbakend = 1', "unknown key 'bakend'", "did you mean 'backend'?"),
        (
            'api = "1.0"\n[[rules]]\nfile = "a.rules"\nstage = "late"',
            "'a.rules' is missing",
            "--force-reinstall",
        ),
    ],
)
def test_a_plugin_that_does_not_fit_is_recorded(site, manifest, reason, hint):
    site.add("sim", manifest)
    site.add("good", BACKEND)
    plugins = by_id()
    assert plugins["good"].usable
    assert plugins["sim"].state == "failed"
    assert reason in plugins["sim"].reason
    assert hint in plugins["sim"].hint


def test_stale_metadata_is_recorded(site):
    site.add("sim", entry="site_gone")
    assert "is gone" in by_id()["sim"].reason
    assert "pip uninstall thirdparty-sim" in by_id()["sim"].hint


def test_an_entry_point_below_the_top_level_would_import_and_is_refused(site):
    site.add("sim", entry="site_sim.inner")
    assert "not a top-level package" in by_id()["sim"].reason
    assert site.imported() == set()


def test_two_distributions_with_one_id(site):
    site.add("sim", BACKEND, distribution="first")
    site.add("sim", BACKEND, package="site_other", distribution="second")
    plugins = discover()
    assert [plugin.state for plugin in plugins] == ["ok", "failed"]
    assert "first has the same plugin id" in plugins[1].reason


def test_a_distribution_that_is_listed_twice_counts_once(site, monkeypatch, tmp_path):
    # setuptools leaves an egg-info folder beside an editable install's dist-info.
    package = site.add("sim", BACKEND)
    egg = site.path / "thirdparty_sim.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: thirdparty.sim\nVersion: 0.3.0\n")
    (egg / "entry_points.txt").write_text(f"[tinycore.plugins]\nsim = {package}\n")
    assert [plugin.id for plugin in discover()] == ["sim"]


@pytest.mark.parametrize("metadata", [None, "", "Metadata-Version: 2.1\n"])
def test_damaged_metadata_does_not_hide_the_other_plugins(site, metadata):
    site.add("good", BACKEND)
    site.add("sim", BACKEND, distribution="torn")
    file = site.path / "torn-0.3.0.dist-info" / "METADATA"
    file.unlink() if metadata is None else file.write_text(metadata)
    found = by_id()
    assert found["good"].usable
    assert found["sim"].title == "plugin 'sim' (unknown unknown)"


def test_disable_and_enable_persist_without_importing(site):
    site.add("sim", BACKEND, files={"__init__.py": "raise SystemExit(3)"})
    assert settings.set_enabled("thirdparty_Sim", False)
    assert by_id()["sim"].state == "disabled"
    assert settings.set_enabled("thirdparty-sim", True)
    assert settings.set_enabled("sim", False)
    assert not settings.set_enabled("sim", False), "already so"
    reset()
    assert by_id()["sim"].reason == "disabled by the user"
    assert site.imported() == set()
    assert [path.name for path in settings.settings_path().parent.iterdir()] == ["plugins.toml"]


def test_environment_switches(site):
    site.add("sim", BACKEND)
    site.add("other", BACKEND)
    with override(disabled_plugins=("SIM",)):
        assert by_id()["sim"].state == "disabled" and by_id()["other"].usable
    with override(plugins=("thirdparty-sim",)):
        assert by_id()["sim"].usable
        assert by_id()["other"].reason == "not in TINYCORE_PLUGINS"


@pytest.mark.parametrize("text", ["disabled = ", "disabled = 3", "disabled = [1]", b"\xff"])
def test_damaged_settings_say_what_to_do(site, text):
    path = settings.settings_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"rm .*plugins\.toml"):
        discover()


def test_settings_that_cannot_be_written_say_so(site, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        override(config_directory=tmp_path / "file"),
        pytest.raises(ConfigError, match="TINYCORE_CONFIG_DIR"),
    ):
        settings.set_enabled("sim", False)


def test_an_interrupted_write_leaves_the_old_settings_and_no_debris(site, monkeypatch):
    settings.set_enabled("sim", False)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(settings.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        settings.set_enabled("other", False)
    assert settings.disabled() == {"sim"}
    assert [path.name for path in settings.settings_path().parent.iterdir()] == ["plugins.toml"]
