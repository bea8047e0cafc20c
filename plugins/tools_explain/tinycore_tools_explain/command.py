"""`tinycore explain`: every stage of an expression's way to code, and which rules made it so."""

from __future__ import annotations

import argparse
from typing import Any

from tinycore.cli import UsageError
from tinycore.cli.expression import add_rules_argument, evaluate, with_rules
from tinycore.cli.output import print_json


def add_command(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `explain` to the command line."""
    example = "tinycore explain 'Tensor([1.0, 2.0]).exp().sum()'"
    parser = subparsers.add_parser(
        "explain",
        help="show every stage of an expression's way to code, and which rules made it so",
        description="Show every stage of an expression's way to code, and which rules made it so.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument(
        "expression",
        metavar="EXPRESSION",
        help="an expression over Tensor, nn and Input(shape...), or a Python file that sets `result`",
    )
    parser.add_argument("--device", metavar="NAME", help="compile for this device instead of the default one")
    parser.add_argument("--kernel", type=int, metavar="N", help="only this kernel, with its program")
    parser.add_argument(
        "--stage", metavar="NAME", help="also the graph after this pass; `all` for every pass"
    )
    parser.add_argument("--code", action="store_true", help="also the generated code")
    parser.add_argument("--trace", action="store_true", help="every single rewrite, before and after")
    parser.add_argument("--no-run", action="store_true", help="do not run the kernels to time them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_rules_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain the expression."""
    from tinycore.config import config, override
    from tinycore.errors import TinycoreError
    from tinycore.runtime.devices import default_device, get_device
    from tinycore_tools_explain.explain import explain, to_data
    from tinycore_tools_explain.text import View, choose, report

    wanted = arguments.device.upper() if arguments.device else config().device
    with override(device=wanted), with_rules(arguments.rules):
        get_device(default_device())
        value = evaluate(arguments.expression)
        found = explain(value, run=not arguments.no_run)
        view = View(arguments.kernel, arguments.stage, arguments.code, arguments.trace)
        try:
            choose(found, view)
        except TinycoreError as error:
            raise UsageError(error.what, where=error.where, hint=error.hint) from None
        if arguments.json:
            print_json(to_data(found))
        else:
            print(report(found, view))
    return 0
