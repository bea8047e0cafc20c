"""`tinycore completion bash|zsh|fish`: a completion script to source from the shell's start-up file."""

from __future__ import annotations

import argparse

from tinycore.cli import COMMANDS

_ACTIONS = "list info check enable disable"

_BASH = """_tinycore() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  case "${{COMP_WORDS[1]}}" in
    plugins)
      if [ "$COMP_CWORD" -eq 2 ]; then words="{actions}"
      else
        words="$(tinycore plugins list --json 2>/dev/null | sed -n 's/^    "id": "\\(.*\\)",$/\\1/p')"
      fi ;;
    completion) words="bash zsh fish" ;;
    *) [ "$COMP_CWORD" -eq 1 ] && words="{commands}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _tinycore tinycore
"""

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH

_FISH = """complete -c tinycore -n __fish_use_subcommand -f -a "{commands}"
complete -c tinycore -n "__fish_seen_subcommand_from plugins" -f -a "{actions}"
complete -c tinycore -n "__fish_seen_subcommand_from completion" -f -a "bash zsh fish"
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the argument."""
    parser.add_argument("shell", choices=tuple(_SCRIPTS))


def run(arguments: argparse.Namespace) -> int:
    """Print the script of one shell."""
    print(_SCRIPTS[arguments.shell].format(commands=" ".join(COMMANDS), actions=_ACTIONS), end="")
    return 0
