"""Distributions are found as `importlib.metadata` finds them, without importing it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile

import pytest

from tinycore.plugin.installed import EntryPoint, installed, version_of


def key(name):
    return name.replace("_", "-").lower()


def test_the_same_distributions_and_entry_points():
    wanted = {
        (key(found.metadata["Name"]), found.version, entry.name, entry.value)
        for found in importlib.metadata.distributions()
        for entry in found.entry_points
        if entry.group == "tinycore.plugins"
    }
    assert wanted
    found = {
        (key(found.name), found.version, entry.name, entry.value)
        for found in installed()
        for entry in found.entry_points("tinycore.plugins")
    }
    assert found == wanted


def test_versions():
    for found in importlib.metadata.distributions():
        name = found.metadata["Name"]
        assert version_of(name) == importlib.metadata.version(name), name
    assert version_of("thirdparty-nothing") is None


def test_entry_points_of_other_groups_and_comments(site):
    site.add("sim")
    (info,) = site.path.glob("*.dist-info")
    (info / "entry_points.txt").write_text(
        "[console_scripts]\nsim = site_sim:main\n\n# [tinycore.plugins]\n"
        "[tinycore.plugins]\n; none = none\nsim = site_sim\n[x]\ny = z\n"
    )
    (found,) = [found for found in installed() if found.name == "thirdparty-sim"]
    assert found.entry_points("tinycore.plugins") == [EntryPoint("sim", "site_sim")]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"Metadata-Version: 2.1\n\nName: body\n"])
def test_damaged_metadata_has_no_name(site, content):
    site.add("sim")
    (info,) = site.path.glob("*.dist-info")
    (info / "METADATA").write_bytes(content)
    (found,) = [
        found
        for found in installed()
        if found.entry_points("tinycore.plugins")[:1] == [EntryPoint("sim", "site_sim")]
    ]
    assert found.name is None and found.version is None


def test_an_archive_on_the_path_is_left_to_importlib(tmp_path, monkeypatch):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("packed-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed\nVersion: 1.5\n")
    monkeypatch.syspath_prepend(str(archive))
    assert version_of("packed") == "1.5"


def test_plugins_are_found_without_importlib_metadata():
    program = (
        "import sys\nfrom tinycore.plugin.registry import installed\nassert installed()\n"
        "assert 'importlib.metadata' not in sys.modules and 'email' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
