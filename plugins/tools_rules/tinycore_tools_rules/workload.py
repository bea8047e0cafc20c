"""What rules are watched with: expressions that are compiled, scripts, and modules such as a test suite."""

from __future__ import annotations

import argparse
import contextlib
import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinycore.cli import UsageError
from tinycore.cli.expression import evaluate
from tinycore.config import override
from tinycore.ir import UOp, ops
from tinycore.rules import extra_rules
from tinycore.rules.module import Code
from tinycore_tools_rules.sources import Source, open_sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The option that says what runs."""
    parser.add_argument(
        "--run",
        action="append",
        metavar="WORKLOAD",
        help="what to run (repeatable): an expression over Tensor, nn and Input(shape...), which is compiled; "
        "a Python script; or `-m MODULE ARGUMENTS`",
    )
    parser.add_argument("--device", metavar="NAME", help="compile for this device instead of the default one")


@contextlib.contextmanager
def in_force(words: Sequence[str]) -> Iterator[list[tuple[Source, Code]]]:
    """The named files with the code that runs: files that belong to no package join the compiler in the block."""
    with contextlib.ExitStack() as stack:
        found: list[tuple[Source, Code]] = []
        for source in open_sources(words):
            code = source.module.code
            if source.name == source.path or Path(source.name).suffix == ".rules":
                code = stack.enter_context(extra_rules(source.path)).code
            found.append((source, code))
        yield found


def run_all(workloads: Sequence[str] | None, device: str | None = None) -> None:
    """Run the workloads with nothing remembered on disk. Raises UsageError when there is none."""
    if not workloads:
        raise UsageError("nothing is run", hint="for example: --run 'Input(4, 4).exp().sum()'")
    changes: dict[str, Any] = {"cache": False}
    if device:
        changes["device"] = device.upper()
    with override(**changes):
        for workload in workloads:
            run_one(workload)


def run_one(workload: str) -> None:
    """Run a script or a module, or compile an expression."""
    if workload.startswith("-m "):
        _module(shlex.split(workload)[1:])
    elif workload.endswith(".py"):
        if not Path(workload).is_file():
            raise UsageError(f"there is no file {workload!r}")
        with _arguments([workload]):
            result = runpy.run_path(workload, run_name="__main__").get("result")
        if result is not None:
            compile_value(result)
    else:
        compile_value(evaluate(workload))


def _module(words: list[str]) -> None:
    if not words:
        raise UsageError("-m needs a module", hint="for example: --run '-m pytest -q tests'")
    try:
        with _arguments(words):
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        if exit_.code not in (None, 0):
            raise UsageError(f"{' '.join(words)} ended with status {exit_.code}") from None
    except ImportError as error:
        raise UsageError(f"cannot run {words[0]}: {error}") from error


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    kept, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = kept


def _roots(value: Any) -> list[UOp]:
    """The graphs of a tensor, or of several. Raises UsageError."""
    roots: list[UOp] = []
    for each in value if isinstance(value, list | tuple) else [value]:
        node = each if isinstance(each, UOp) else getattr(each, "uop", None)
        if not isinstance(node, UOp):
            raise UsageError(
                f"a {type(each).__name__} is no tensor", hint="for example: Input(4, 4).exp().sum()"
            )
        while node.op is ops.DETACH:
            node = node.src[0]
        roots.append(node)
    return roots


def compile_value(value: Any) -> int:
    """Schedule, lower and render some tensors; the number of kernels. Nothing runs."""
    from tinycore.codegen.compile import lower
    from tinycore.runtime.devices import capabilities_of, default_device, get_device
    from tinycore.runtime.joined import joined, schedule_doors
    from tinycore.runtime.reference import ReferenceDevice
    from tinycore.schedule import KernelStep, make_schedule, number_buffers

    home = default_device()
    numbered, _ = number_buffers(_roots(value))
    schedule = make_schedule(numbered, home, schedule_doors(), capabilities=capabilities_of)
    kernels = [step for step in schedule.steps if isinstance(step, KernelStep)]
    for step in kernels:
        device = get_device(step.device)
        if not isinstance(device, ReferenceDevice):
            device.render(lower(step.kernel, device.target, joined().doors, ()))
    return len(kernels)
