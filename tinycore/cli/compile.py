"""`tinycore compile`: what a backend makes of an expression, with no such device present.

The expression becomes kernels as it would for a device that is there; nothing is run. A backend takes part by
answering a target that brings its compiler (`OfflineCompiler`), or by opening a device of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tinycore.cli import UsageError
from tinycore.cli.expression import add_rules_argument, with_rules
from tinycore.cli.output import print_json
from tinycore.errors import BackendUnavailable, did_you_mean

if TYPE_CHECKING:
    from tinycore.codegen.program import Program
    from tinycore.ir import Target, UOp
    from tinycore.runtime.environment import BackendSpec

KERNELS: Final = {
    "matmul": "Input(512, 512) @ Input(512, 512)",
    "softmax": "Input(1024, 1024).softmax()",
    "conv": "Input(1, 32, 28, 28).conv2d(Input(64, 32, 3, 3), padding=1).relu()",
}
"""Expressions that are worth a look, by name."""

EMITS: Final = ("ir", "asm", "object")


@runtime_checkable
class OfflineCompiler(Protocol):
    """A target that compiles with no device present."""

    def render(self, program: Program) -> str:
        """Source text of a program."""

    def assembly(self, source: str) -> str:
        """Assembly text of a source. Raises CompileError."""

    def object_code(self, source: str, name: str) -> bytes:
        """Machine code of a source. Raises CompileError."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How one target's code is made."""

    target: Target
    render: Callable[[Program], str]
    assembly: Callable[[str], str] | None
    object_code: Callable[[str, str], bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "expression",
        nargs="?",
        metavar="EXPRESSION",
        help="an expression over Tensor and Input(shape...), or a Python file that sets `result`",
    )
    what.add_argument("--kernel", choices=KERNELS, help="one of the built-in expressions instead")
    parser.add_argument("--target", required=True, metavar="NAME[:ARCHITECTURE]", help="what to compile for")
    parser.add_argument(
        "--emit",
        choices=EMITS,
        help="the rendered source, assembly (what is shown where a backend has it), or an object",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write one file a kernel instead")
    parser.add_argument("--json", action="store_true", help="print JSON, the code included")
    add_rules_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compile every kernel of the expression and print or write it."""
    tools = toolchain(arguments.target)
    text = KERNELS[arguments.kernel] if arguments.kernel else arguments.expression
    what = arguments.emit or ("ir" if tools.assembly is None else "asm")
    if what == "asm" and tools.assembly is None:
        raise UsageError(f"{tools.target.name} shows no assembly", hint="--emit ir, or --emit object")
    if what == "object" and arguments.output is None and not arguments.json:
        raise UsageError("an object is not text", hint="say where to write it: --output FOLDER")
    reports = []
    with with_rules(arguments.rules):
        compiled = programs(text, tools.target)
    for program in compiled:
        code = emit(tools, program, what)
        report = describe(program, what, code)
        reports.append(report)
        if arguments.output is not None:
            report["file"] = str(_write(arguments.output, program.name, what, code))
        if not arguments.json:
            _show(report, code if arguments.output is None else None)
    if arguments.json:
        print_json(
            {"target": tools.target.name, "architecture": tools.target.architecture, "kernels": reports}
        )
    return 0


def programs(text: str, target: Target) -> list[Program]:
    """The kernels of an expression, lowered for a target, each once, in the order in which they would run."""
    from tinycore.cli.expression import graphs
    from tinycore.codegen.compile import lower
    from tinycore.runtime.joined import joined, schedule_doors
    from tinycore.schedule import KernelStep, make_schedule, number_buffers

    roots: list[UOp] = graphs(text)
    numbered, _ = number_buffers(roots)
    steps = make_schedule(
        numbered, target.name, schedule_doors(), capabilities=lambda _: target.capabilities
    ).steps
    kernels = dict.fromkeys(step.kernel for step in steps if isinstance(step, KernelStep))
    if not kernels:
        raise UsageError("there is nothing to compute", where=text, hint="the values are stored already")
    return [lower(kernel, target, joined().doors) for kernel in kernels]


def toolchain(name: str) -> Toolchain:
    """The tools for ``NAME`` or ``NAME:ARCHITECTURE``. Raises BackendUnavailable, saying what there is."""
    kind, _, architecture = name.partition(":")
    spec = _spec(kind.upper())
    target = spec.compile_target(architecture or None) if spec.compile_target is not None else None
    compiler: object = target
    if target is not None and isinstance(compiler, OfflineCompiler):
        return Toolchain(target, compiler.render, compiler.assembly, compiler.object_code)
    if architecture and target is None:
        raise BackendUnavailable(
            f"{spec.name} compiles for its own devices only", hint=f"--target {spec.name}"
        )
    device = spec.open()
    return Toolchain(target or device.target, device.render, None, device.compile)


def _spec(kind: str) -> BackendSpec:
    from tinycore.runtime.environment import environment

    known = environment()
    if kind in known.backends:
        return known.backends[kind]
    if kind in known.missing:
        raise BackendUnavailable(f"{kind} cannot be used: {known.missing[kind]}", hint="tinycore doctor")
    hint = did_you_mean(kind, known.backends) or f"pip install tinycore-backend-{kind.lower()}"
    raise BackendUnavailable(f"no plugin compiles for {kind!r}", hint=hint)


def emit(tools: Toolchain, program: Program, what: str) -> str | bytes:
    """The code of a program, as text or as an object."""
    source = tools.render(program)
    if what == "ir":
        return source
    if what == "object":
        return tools.object_code(source, program.name)
    assert tools.assembly is not None
    return tools.assembly(source)


def describe(program: Program, what: str, code: str | bytes) -> dict[str, Any]:
    """Facts about a compiled kernel as plain data."""
    import base64

    encoded = base64.b64encode(code).decode() if isinstance(code, bytes) else code
    return {
        "name": program.name,
        "grid": [dim if isinstance(dim, int) else repr(dim) for dim in program.grid],
        "group": list(program.group),
        "buffers": [repr(parameter.dtype) for parameter in program.parameters],
        "variables": [str(variable.arg[0]) for variable in program.variables],
        "statements": len(program.linear.src),
        "emit": what,
        "bytes": len(code),
        "code": encoded,
    }


def _show(report: dict[str, Any], code: str | bytes | None) -> None:
    grid = " x ".join(map(str, report["grid"])) or "1"
    group = f", groups of {' x '.join(map(str, report['group']))}" if report["group"] else ""
    where = f" -> {report['file']}" if "file" in report else ""
    size = f"{report['statements']} statements, {report['bytes']} bytes"
    print(f"# {report['name']}: grid {grid}{group}, {size}{where}")
    if code is not None:
        print(code)


def _write(folder: Path, name: str, what: str, code: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{ {'ir': 'txt', 'asm': 's', 'object': 'o'}[what] }"
    path.write_bytes(code if isinstance(code, bytes) else code.encode())
    return path
