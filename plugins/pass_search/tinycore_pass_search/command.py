"""`tinycore search`: find faster tilings for the kernels of an expression or a program, ahead of time."""

from __future__ import annotations

import argparse
from typing import Any

from tinycore.cli import UsageError
from tinycore.cli.output import print_json, print_table
from tinycore.ir import Target, UOp, dims
from tinycore_pass_search.progress import show_time
from tinycore_pass_search.session import KERNEL_SECONDS, tuned
from tinycore_pass_search.store import Record, store

EXAMPLES = """examples:
  tinycore search 'Input(512, 512) @ Input(512, 512)'
  tinycore search 'Input(64, 1000).softmax()' --seconds 20 --json
  tinycore search model.py --device CPU --seconds 300     (model.py sets `result`)
  tinycore search --list
  tinycore search --forget

Results are kept in the cache directory and used by every later process. To tune a whole program while it runs:
  TINYCORE_SEARCH=120 python program.py"""


def add_command(subparsers: Any) -> None:
    """Describe the command."""
    about = "measure tilings on the device and keep the fastest"
    parser = subparsers.add_parser(
        "search",
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "expression",
        nargs="?",
        metavar="EXPRESSION",
        help="an expression over Tensor and Input(shape...), or a Python file that sets `result`",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for all kernels (default %(default)g)")
    parser.add_argument(
        "--kernel-seconds", type=float, default=KERNEL_SECONDS, help="for one kernel (default %(default)g)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of candidates (default 0)")
    parser.add_argument("--again", action="store_true", help="search kernels with a stored result, too")
    parser.add_argument("--device", metavar="NAME", help="measure on this device (default: the default one)")
    parser.add_argument("--list", action="store_true", help="show what is stored")
    parser.add_argument("--forget", action="store_true", help="remove what is stored, and kernels made of it")
    parser.add_argument("--json", action="store_true", help="print JSON, with the actions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Search, list or forget. Raises UsageError when that is not clear."""
    if arguments.list + arguments.forget + bool(arguments.expression) != 1:
        raise UsageError("say what to search, or --list, or --forget", hint="tinycore search --help")
    if arguments.forget:
        return _forget()
    if arguments.list:
        return _show(list(store().records()), arguments.json, "nothing is stored")
    if arguments.seconds <= 0 or arguments.kernel_seconds <= 0:
        raise UsageError("a search needs more than 0 seconds")
    return _search(arguments)


def _search(arguments: argparse.Namespace) -> int:
    from tinycore.cli.expression import graphs
    from tinycore.config import override
    from tinycore.runtime.compiler import compile_kernel
    from tinycore.runtime.devices import default_device, get_device
    from tinycore.runtime.reference import ReferenceDevice

    with override(**({"device": arguments.device} if arguments.device else {})):
        device = get_device(arguments.device or default_device())
        if isinstance(device, ReferenceDevice):
            raise UsageError("the interpreter has no tilings", hint="--device CPU")
        kernels = _kernels(graphs(arguments.expression), device.target)
        if not kernels:
            raise UsageError("there is nothing to compute", where=arguments.expression)
        with tuned(
            arguments.seconds,
            kernel_seconds=arguments.kernel_seconds,
            seed=arguments.seed,
            again=arguments.again,
        ) as tuning:
            for kernel in kernels:
                compile_kernel(kernel, device)
    skipped = len(kernels) - len(tuning.records)
    status = _show(list(tuning.records.values()), arguments.json, "no kernel was searched")
    if skipped > 0 and not arguments.json:
        print(
            f"{skipped} of {len(kernels)} kernels were not searched: time was up, or there is nothing to tile"
        )
    return status


def _kernels(roots: list[UOp], target: Target) -> list[UOp]:
    """Every kernel once, those with the most work first: they get their time when it is short."""
    from tinycore.runtime.joined import schedule_doors
    from tinycore.schedule import KernelStep, make_schedule, number_buffers

    numbered, _ = number_buffers(roots)
    schedule = make_schedule(
        numbered, target.name, schedule_doors(), capabilities=lambda _: target.capabilities
    )
    kernels = dict.fromkeys(step.kernel for step in schedule.steps if isinstance(step, KernelStep))
    return sorted(kernels, key=_work, reverse=True)


def _work(kernel: UOp) -> int:
    """Elements of everything that a kernel computes; symbolic dimensions count as 1."""
    total = 0
    for node in kernel.toposort():
        if node.op.elementwise:
            size = dims.product(node.shape)
            total += size if isinstance(size, int) else 1
    return total


def _forget() -> int:
    from tinycore.runtime.cache import open_cache

    store().forget()
    compiled = open_cache("kernels")
    if compiled is not None:
        compiled.clear()
    print("forgotten: all search results, and the kernels that were compiled")
    return 0


def _show(records: list[Record], as_json: bool, nothing: str) -> int:
    if as_json:
        print_json([describe(record) for record in records])
    elif not records:
        print(nothing)
    else:
        rows = [
            [
                record.target,
                record.kernel,
                show_time(record.before),
                show_time(record.after),
                f"{record.before / record.after:.2f}" if record.improved else "-",
                str(record.tried),
            ]
            for record in records
        ]
        print_table(["target", "kernel", "before", "after", "times faster", "tried"], rows)
    return 0


def describe(record: Record) -> dict[str, Any]:
    """A record as plain data, the actions in words."""
    return {
        "target": record.target,
        "kernel": record.kernel,
        "before": record.before,
        "after": record.after,
        "improved": record.improved,
        "tried": record.tried,
        "seed": record.seed,
        "base": [str(action) for action in record.base],
        "actions": [str(action) for action in record.actions],
    }
