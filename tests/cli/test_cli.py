from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tinycore.cli import COMMANDS, main

SIM = """
api = "1.0"
uop_spec = 1
[[backend]]
name = "SIM"
priority = 3
entry = "PACKAGE:open_device"
"""
WORKING = """
class Target: architecture = "v1"
class Device:
    target = Target()
    def close(self): ...
def open_device(): return Device()
"""
COMMAND = """
from tinycore.plugin import hookimpl
@hookimpl
def tinycore_add_commands(subparsers):
    parser = subparsers.add_parser("greet", help="say hello")
    parser.add_argument("name")
    parser.set_defaults(run=lambda arguments: print("hello", arguments.name) or len(arguments.name) // 9)
"""
HOOKED = 'api = "1.0"\n[hooks]\nmodule = "PACKAGE.hooks"\nnames = ["tinycore_add_commands"]'


def run(*words):
    """Exit status; argparse leaves through SystemExit."""
    try:
        return main(words)
    except SystemExit as leaving:
        return leaving.code


def test_list(site, capsys):
    site.add("sim", SIM)
    site.add("old", 'api = "0.1"')
    assert run("plugins", "list") == 0
    out = capsys.readouterr().out
    assert "sim  0.3.0    ok      backends: SIM" in out
    assert "thirdparty-old 0.3.0): it was built for plugin API 0.1" in out
    assert run("plugins", "list", "--json") == 0
    facts = {each["id"]: each for each in json.loads(capsys.readouterr().out)}
    assert facts["sim"]["provides"] == {"backends": ["SIM"]}
    assert facts["old"]["state"] == "failed"


def test_an_empty_list_says_what_to_install(site, capsys):
    assert run("plugins", "list") == 0
    assert "pip install" in capsys.readouterr().out


def test_info(site, capsys):
    site.add("sim", SIM)
    assert run("plugins", "info", "thirdparty_sim") == 0
    out = capsys.readouterr().out
    assert "package       site_sim" in out and "backends      SIM" in out
    assert run("plugins", "info", "sim", "--json") == 0
    assert json.loads(capsys.readouterr().out)["api"] == "1.0"


def test_check(site, capsys):
    site.add("sim", SIM, files={"__init__.py": "1/0\n" + WORKING})
    assert run("plugins", "check", "sim") == 0
    assert site.imported() == set()
    assert run("plugins", "check", "sim", "--load") == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    site.add("bad", SIM)
    assert run("plugins", "check", "bad", "--json") == 1
    assert "has no 'open_device'" in json.loads(capsys.readouterr().out)["bad"][0]
    assert run("plugins", "check") == 1


def test_disable_and_enable(site, capsys):
    site.add("sim", SIM, files={"__init__.py": "import sys; sys.exit(3)"})
    assert run("plugins", "disable", "sim") == 0
    assert "is now disabled" in capsys.readouterr().out
    assert run("plugins", "disable", "sim", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"id": "sim", "changed": False, "state": "disabled"}
    assert run("plugins", "enable", "sim") == 0
    assert "is now enabled" in capsys.readouterr().out
    assert site.imported() == set()


def test_enable_says_when_the_environment_still_forbids_it(site, capsys):
    from tinycore.config import override

    site.add("sim", SIM)
    with override(disabled_plugins=("sim",)):
        assert run("plugins", "enable", "sim") == 1
    assert "still off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plguins",), "did you mean 'plugins'?"),
        (("explain", "1"), "pip install tinycore-tools-explain"),
        (("plugins", "info", "smi"), "did you mean 'sim'?"),
        (("plugins", "disable", "nothing-like-it"), "tinycore plugins list"),
        (("plugins",), "required"),
        (("plugins", "lits"), "invalid choice"),
        (("completion", "tcsh"), "invalid choice"),
    ],
)
def test_wrong_usage_is_2_and_helps(site, capsys, words, message):
    site.add("sim", SIM)
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_help_shows_every_command_and_examples(site, capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS) and "examples:" in out
    assert run() == 2
    for name in ("plugins", "doctor", "devices", "completion"):
        assert run(name, "--help") == 0
        assert "example:" in capsys.readouterr().out


def test_devices(site, capsys):
    site.add("sim", SIM, files={"__init__.py": WORKING})
    site.add("bad", SIM.replace("SIM", "BAD").replace("3", "9"), files={"__init__.py": "1/0"})
    site.add("new", SIM.replace("SIM", "NEW").replace("1.0", "3.0"))
    assert run("devices", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in facts["devices"]}
    assert facts["default"] == "SIM"
    assert (rows["SIM"]["state"], rows["SIM"]["architecture"]) == ("ok", "v1")
    assert "ZeroDivisionError" in rows["BAD"]["reason"]
    assert "plugin API 3.0" in rows["NEW"]["reason"]
    assert run("devices") == 0
    assert "default: SIM" in capsys.readouterr().out


def test_no_device_at_all(site, capsys):
    assert run("devices") == 0
    assert "interpreter" in capsys.readouterr().out


def test_doctor(site, capsys):
    site.add("sim", SIM, files={"__init__.py": WORKING})
    assert run("doctor") == 0
    assert "all is well" in capsys.readouterr().out
    site.add("bad", SIM.replace("SIM", "BAD"), files={"__init__.py": "1/0"})
    assert run("doctor", "--json") == 1
    levels = [finding["level"] for finding in json.loads(capsys.readouterr().out)]
    assert levels.count("error") == 1


def test_plugins_bring_commands(site, capsys):
    site.add("greet", HOOKED, files={"hooks.py": COMMAND})
    assert run("greet", "you") == 0
    assert capsys.readouterr().out == "hello you\n"
    assert run("greet", "everybody") == 1
    assert run("--help") == 0
    assert "say hello" in capsys.readouterr().out


def test_a_failing_command_of_a_plugin_is_no_traceback(site, capsys):
    site.add("greet", HOOKED, files={"hooks.py": COMMAND.replace("print(", "1 / 0 or print(")})
    assert run("greet", "you") == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "Traceback" not in err


def test_a_broken_plugin_locks_nobody_out(site, capsys):
    site.add("broken", HOOKED, files={"hooks.py": "raise SystemExit('gone')"})
    assert run("--help") == 0
    assert "warning: plugin 'broken'" in capsys.readouterr().err
    assert run("plugins", "disable", "broken") == 0
    assert "warning" not in capsys.readouterr().err
    assert run("--help") == 0
    assert "warning" not in capsys.readouterr().err


def test_a_plugin_cannot_replace_a_built_in_command(site, capsys):
    site.add("greedy", HOOKED, files={"hooks.py": COMMAND.replace("greet", "plugins")})
    assert run("plugins", "disable", "greedy") == 0
    assert "is now disabled" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse_and_know_the_commands(capsys, shell, tmp_path):
    assert run("completion", shell) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    if executable := shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        subprocess.run([executable, "-n", str(path)], check=True)


def test_bash_completion_completes(capsys, tmp_path):
    if not (bash := shutil.which("bash")):
        pytest.skip("bash is not installed")
    run("completion", "bash")
    script = capsys.readouterr().out
    script += 'COMP_WORDS=(tinycore plugins e); COMP_CWORD=2; _tinycore; echo "${COMPREPLY[@]}"\n'
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "enable\n"


def test_interrupt_and_closed_pipe_are_quiet(tmp_path):
    command = f"{sys.executable} -m tinycore.cli --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(site, capsys, name):
    assert run(name, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: tinycore {name}")
