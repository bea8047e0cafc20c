"""What people name on the command line: an expression over what plugins export, or a file that makes one."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinycore.cli import UsageError
from tinycore.errors import TinycoreError
from tinycore.ir import UOp, dtypes, ops

_numbers = itertools.count(1 << 48)  # apart from the numbers of real buffers

RESULT = "result"
"""The name that a file gives to what it wants to have looked at."""


def graphs(text: str) -> list[UOp]:
    """The tensor graphs that an expression, or a Python file with a variable `result`, stands for.

    An expression may use every name that an installed plugin exports (`Tensor`, for instance), and `Input`,
    see `stored_input`. Raises UsageError when it cannot be evaluated or stands for no tensor.
    """
    return _graphs_of(evaluate(text), text)


def evaluate(text: str) -> Any:
    """What an expression or a file stands for, see `graphs`. Raises UsageError."""
    return _run_file(Path(text)) if text.endswith(".py") else _evaluate(text)


def _evaluate(text: str) -> Any:
    try:
        # Typed by the person who runs it, on their own machine, as for `python -c`.
        return eval(compile(text, "<expression>", "eval"), {}, _Exports(Input=stored_input))
    except TinycoreError:
        raise
    except Exception as error:
        where = text
        if isinstance(error, SyntaxError) and error.offset:
            where += "\n" + " " * (error.offset - 1) + "^"
        raise UsageError(
            f"the expression fails with {type(error).__name__}: {error}",
            where=where,
            hint="for example: Input(4, 4).exp().sum()",
        ) from error


class _Exports(dict[str, Any]):
    """Looks names up among the exports of plugins; only the plugins that are used are imported."""

    def __missing__(self, name: str) -> Any:
        import builtins

        if hasattr(builtins, name):
            return getattr(builtins, name)
        from tinycore.plugin.exports import load_export

        return load_export(name)


def stored_input(*shape: int, dtype: str = "float32") -> Any:
    """What `Input(4, 4)` is in an expression: a tensor whose elements would be in memory; it has none."""
    from tinycore.plugin.exports import load_export
    from tinycore.runtime.devices import default_device

    node = UOp(ops.BUFFER, dtypes.by_name(dtype), (), (next(_numbers), shape, default_device()))
    return load_export("Tensor").of_node(node)


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}")
    found = runpy.run_path(str(path))
    if RESULT not in found:
        raise UsageError(
            f"the file does not say what to compile: it has no variable {RESULT!r}",
            where=str(path),
            hint=f"end it with `{RESULT} = ...`",
        )
    return found[RESULT]


def _graphs_of(value: Any, text: str) -> list[UOp]:
    several = value if isinstance(value, list | tuple) else [value]
    found = [each if isinstance(each, UOp) else getattr(each, "uop", None) for each in several]
    graphs = [node for node in found if isinstance(node, UOp)]
    if not graphs or len(graphs) != len(found):
        kinds = ", ".join(sorted({type(each).__name__ for each in several})) or "nothing"
        raise UsageError(f"this stands for {kinds} and not for a tensor", where=text)
    return graphs


def add_rules_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--rules`, for every command that compiles."""
    parser.add_argument(
        "--rules",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="let the rules of this file take part (repeatable); @stage(...) in it says where",
    )


@contextlib.contextmanager
def with_rules(files: list[Path]) -> Iterator[None]:
    """The rules of these files are in force. Raises RuleError."""
    from tinycore.rules import extra_rules

    with contextlib.ExitStack() as stack:
        for file in files:
            stack.enter_context(extra_rules(file))
        yield
