"""Symbolic dimensions: one compiled kernel serves every length.

>>> n = Variable("n", 1, 512).bind(7)
>>> (n + 1).value, str(n)
(8, 'n=7')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tinycore.errors import BindingError
from tinycore.ir import Dim, Shape, UOp, dims, ops
from tinycore_frontend_tensor import graph

Bindings = Mapping[UOp, int]
NO_BINDINGS: Bindings = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Variable:
    """A dimension that is not known when a program is compiled.

    Parameters
    ----------
    name: unique among the variables of a program.
    minimum, maximum: the values it can have, both included; memory is reserved for the maximum.
    multiple_of: every value is divisible by it.

    Raises BindingError when the limits make no sense.
    """

    name: str
    minimum: int
    maximum: int
    multiple_of: int = 1
    node: UOp = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "node", UOp.variable(self.name, self.minimum, self.maximum, self.multiple_of)
        )

    def bind(self, value: int) -> Dimension:
        """The variable with a value. Raises BindingError for a value outside the limits."""
        if not self.minimum <= value <= self.maximum or value % self.multiple_of:
            multiple = f" and divisible by {self.multiple_of}" if self.multiple_of > 1 else ""
            raise BindingError(
                f"{self.name} cannot be {value}",
                hint=f"it must be within {self.minimum}..{self.maximum}{multiple}",
            )
        return Dimension(self.node, MappingProxyType({self.node: value}))


@dataclass(frozen=True, slots=True, eq=False)
class Dimension:
    """A symbolic size that knows its present value; usable wherever a tensor takes a size.

    Sums, differences, products, and quotients by ints are dimensions again. It compares equal to a dimension
    that is the same polynomial, never to a plain int: sizes that happen to agree are not the same size.
    """

    node: UOp
    bindings: Bindings

    @property
    def value(self) -> int:
        """The size in numbers."""
        return evaluate(self.node, self.bindings)

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __str__(self) -> str:
        return f"{graph.text((self.node,))[1:-2]}={self.value}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dimension) and other.node is self.node

    def __hash__(self) -> int:
        return hash(self.node)

    def __add__(self, other: Size) -> Size:
        return _combine(dims.add(self.node, _dim(other)), self, other)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return _combine(dims.subtract(self.node, _dim(other)), self, other)

    def __rsub__(self, other: Size) -> Size:
        return _combine(dims.subtract(_dim(other), self.node), self, other)

    def __mul__(self, other: Size) -> Size:
        return _combine(dims.multiply(self.node, _dim(other)), self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> Size:
        return _combine(dims.floor_divide(self.node, other), self)


Size = int | Dimension
"""What users give as a size."""


def _dim(size: Size) -> Dim:
    return size.node if isinstance(size, Dimension) else size


def _combine(dim: Dim, *sizes: Size) -> Size:
    if isinstance(dim, int):
        return dim
    return Dimension(dim, merge([size.bindings for size in sizes if isinstance(size, Dimension)]))


def merge(several: Iterable[Bindings]) -> Bindings:
    """All bindings together. Raises BindingError when a variable has two values."""
    result: Bindings = NO_BINDINGS
    for bindings in several:
        if not bindings or bindings is result:
            continue
        if not result:
            result = bindings
            continue
        for variable, value in bindings.items():
            if result.get(variable, value) != value:
                raise BindingError(
                    f"{variable.arg[0]} is bound to {result[variable]} in one operand and to {value} in "
                    "another",
                    hint="realize() the older tensor first, or use two variables",
                )
        result = MappingProxyType({**result, **bindings})
    return result


def evaluate(dim: Dim, bindings: Bindings) -> int:
    """The value of a dimension. Raises BindingError when a variable has none."""
    if isinstance(dim, int):
        return dim
    values: dict[UOp, int] = {}
    for node in dim.toposort():
        if node.op is ops.VARIABLE:
            if node not in bindings:
                raise BindingError(
                    f"{node.arg[0]} has no value", hint=f"use Variable({node.arg[0]!r}, ...).bind(...)"
                )
            values[node] = bindings[node]
        elif node.op is ops.CONST:
            values[node] = int(node.arg[0])
        else:
            a, b = (values[operand] for operand in node.src)
            values[node] = {ops.ADD: a + b, ops.SUB: a - b, ops.MUL: a * b}.get(node.op, a // b if b else 0)
    return values[dim]


def sizes(given: Iterable[Size]) -> tuple[Shape, Bindings]:
    """The shape of the IR, and the bindings, of sizes given by a user."""
    given = tuple(given)
    shape = tuple([size.node if isinstance(size, Dimension) else int(size) for size in given])
    return shape, merge([size.bindings for size in given if isinstance(size, Dimension)])
