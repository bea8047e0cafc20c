"""TINYCORE_VALIDATE=1: every pass is checked by running the kernel before and after it on the interpreter.

Results must be equal bit for bit, except where a pass may reorder a float reduction or replace an op by a
declared approximation: then the stated tolerance holds. When a pass of rules fails the check, the rule that
changed the meaning is found by checking each of its rewrites, and named.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinycore.codegen.compile import grid_of
from tinycore.errors import ValidationError
from tinycore.interpret import interpret_kernel, interpret_program
from tinycore.ir import Target, UOp, dims, ops
from tinycore.ir.ops import Level
from tinycore.ir.text import digest, print_graph

if TYPE_CHECKING:
    import numpy

LARGEST = 1 << 22
"""Kernels of more elements (inputs, or iterations of a program) are not interpreted."""
PROGRAM_STEPS = 200_000
"""Programs of more statements are not interpreted: Python runs them one by one."""

Arrays = dict[int, "numpy.ndarray[Any, Any]"]


@dataclass
class Validator:
    """An observer of the pipeline (`tinycore.codegen.pipeline.Observer`)."""

    target: Target
    checked: int = 0
    _inputs: Arrays | None = None
    _expected: Arrays | None = None
    _bindings: dict[UOp, int] = field(default_factory=dict)
    _previous: UOp | None = None

    def __call__(self, name: str, level: Level, before: UOp, after: UOp) -> None:
        """Check one pass. Raises ValidationError naming it, and the rule where one is to blame."""
        if before is not self._previous:
            self._start(before)
        self._previous = after
        if self._inputs is None or self._expected is None or after is before:
            return
        found = self._run(after, level)
        if found is None:
            return
        self.checked += 1
        difference = compare(self._expected, found, self._loose(before, after))
        if difference:
            raise ValidationError(
                f"the pass {name!r} changed the meaning of a kernel: {difference}",
                where=blame(before, after, self._inputs, self._bindings) or _excerpt(after),
                hint="TINYCORE_VALIDATE=0 runs without this check; DEBUG=5 prints every pass",
            )

    def _start(self, kernel: UOp) -> None:
        """Random inputs and the expected outputs of a canonical kernel."""
        self._inputs = self._expected = None
        parameters = [node for node in kernel.toposort() if node.op is ops.PARAM]
        variables = [node for node in kernel.toposort() if node.op is ops.VARIABLE]
        for parameter in parameters:
            variables += list(dims.variables(parameter.arg[1]))
        self._bindings = {v: _some_value(v) for v in variables}
        sizes = {p: _size(p, self._bindings) for p in parameters}
        if sum(sizes.values()) > LARGEST:
            return
        self._inputs = random_inputs(parameters, sizes, digest(kernel))
        self._expected = self._run(kernel, "tensor")

    def _run(self, graph: UOp, level: Level) -> Arrays | None:
        assert self._inputs is not None
        arrays = {slot: array.copy() for slot, array in self._inputs.items()}
        if level == "program":
            if _iterations(graph) > PROGRAM_STEPS:
                return None
            grid, group = grid_of(graph, "global"), grid_of(graph, "local")
            interpret_program(graph, arrays, self._bindings, grid, [dims.upper(size) for size in group])
        else:
            interpret_kernel(graph, arrays, self._bindings)
        return arrays

    def _loose(self, before: UOp, after: UOp) -> bool:
        """Whether reductions may have been reordered or ops approximated."""
        floats = any(node.op is ops.REDUCE and node.dtype.is_float for node in before.toposort())
        return floats or bool(before.mask & _APPROXIMATED)


_APPROXIMATED = 0
for _op in (ops.EXP, ops.EXP2, ops.LOG, ops.LOG2, ops.SIN, ops.COS, ops.TANH, ops.ERF, ops.POW):
    _APPROXIMATED |= _op.bit


def random_inputs(parameters: Sequence[UOp], sizes: Mapping[UOp, int], seed: str) -> Arrays:
    """Flat arrays by slot: normal floats, small integers, a few of both signs; the same for the same kernel."""
    import numpy as np

    generator = np.random.default_rng(zlib.crc32(seed.encode()))
    arrays: Arrays = {}
    for parameter in parameters:
        dtype, size = parameter.dtype, sizes[parameter]
        if dtype.is_float:
            values = generator.standard_normal(size)
        elif dtype.kind == "bool":
            values = generator.integers(0, 2, size)
        else:
            low = 0 if dtype.kind == "uint" else -3
            values = generator.integers(low, 12, size)
        arrays[int(parameter.arg[0])] = values.astype(dtype.numpy)
    return arrays


def compare(expected: Arrays, found: Arrays, loose: bool) -> str:
    """What differs, or the empty string."""
    import numpy as np

    for slot, want in expected.items():
        have = found[slot]
        if loose and want.dtype.kind not in "iub":
            a, b = want.astype(np.float64), have.astype(np.float64)
            epsilon = {2: 2e-2, 4: 2e-4, 8: 1e-10}.get(want.dtype.itemsize, 0.3)
            scale = np.nanmax(np.abs(np.where(np.isfinite(a), a, 0)), initial=0) + 1e-30
            with np.errstate(all="ignore"):
                close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= epsilon * scale)
        else:
            same_bits = want.view(np.uint8) == have.view(np.uint8)
            close = same_bits.reshape(len(want), -1).all(axis=1) if len(want) else same_bits
            with np.errstate(all="ignore"):
                close = close | (want == have) | ((want != want) & (have != have))
        if not close.all():
            at = int(np.argmin(close))
            return f"element {at} of buffer {slot} was {want[at]!r} and became {have[at]!r}"
    return ""


def blame(before: UOp, after: UOp, inputs: Arrays, bindings: Mapping[UOp, int]) -> str | None:
    """The rule that changed the meaning: the passes of rules are run again and each rewrite is checked."""
    from tinycore.codegen.suspects import find_wrong_rule

    return find_wrong_rule(before, inputs, bindings)


def _some_value(variable: UOp) -> int:
    _, minimum, maximum, multiple = variable.arg
    wanted = min(maximum, max(minimum, 5))
    return int(min(maximum // multiple, -(-wanted // multiple)) * multiple)


def _value(dim: Any, bindings: Mapping[UOp, int]) -> int:
    if isinstance(dim, int):
        return dim
    value = dims.to_dim(dim.substitute({v: dims.to_node(n) for v, n in bindings.items()}))
    assert isinstance(value, int)
    return value


def _size(parameter: UOp, bindings: Mapping[UOp, int]) -> int:
    return _product([_value(dim, bindings) for dim in parameter.arg[1]])


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _iterations(linear: UOp) -> int:
    """About how many statements a program executes."""
    total, factor = 0, 1
    stack: list[int] = []
    for node in linear.src:
        if node.op is ops.RANGE:
            stack.append(max(1, min(node.src[0].vmax, 1 << 20)))
            factor *= stack[-1]
        elif node.op is ops.END and node.src[0].op is ops.RANGE and stack:
            factor //= stack.pop()
        total += factor
    return total


def _excerpt(graph: UOp) -> str:
    lines = print_graph(graph).splitlines()
    return "\n".join(lines if len(lines) <= 30 else [*lines[:30], f"... {len(lines) - 30} more lines"])
