"""The whitelist: every attribute, method and function that expressions of rules may use.

What is not here cannot be reached from a rule file. `specs/rules.md` lists the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tinycore.ir.target import Capabilities

Type = Any

_NODE: dict[str, tuple[str, Type]] = {
    "op": (".op", "op"),
    "dtype": (".dtype", "dtype"),
    "shape": (".shape", ("list", "dim")),
    "src": (".src", ("list", "node")),
    "arg": (".arg", "any"),
    "value": (".value", "num"),
    "vmin": (".bounds[0]", "num"),
    "vmax": (".bounds[1]", "num"),
    "bounds": (".bounds", ("tuple", ("num", "num"))),
    "ranges": (".ranges", ("list", "node")),
    "is_const": (".is_const", "bool"),
}
_DTYPE: dict[str, tuple[str, Type]] = {
    "name": (".name", "str"),
    "kind": (".kind", "str"),
    "bits": (".bits", "num"),
    "itemsize": (".itemsize", "num"),
    "mantissa": (".mantissa", "num"),
    "is_float": (".is_float", "bool"),
    "is_int": (".is_int", "bool"),
    "min": (".min", "num"),
    "max": (".max", "num"),
}
_OP: dict[str, tuple[str, Type]] = {
    "name": (".name", "str"),
    **{
        name: (f".{name}", "bool")
        for name in ("commutative", "associative", "idempotent", "elementwise", "movement", "statement")
    },
}
_TARGET: dict[str, tuple[str, Type]] = {
    "name": (".name", "str"),
    "architecture": (".architecture", "str"),
    "capabilities": (".capabilities", "capabilities"),
    **{field.name: (f".capabilities.{field.name}", "any") for field in fields(Capabilities)},
}
ATTRIBUTES: dict[str, dict[str, tuple[str, Type]]] = {
    "node": _NODE,
    "dtype": _DTYPE,
    "op": _OP,
    "target": _TARGET,
    "capabilities": {field.name: (f".{field.name}", "any") for field in fields(Capabilities)},
    "any": {
        **_OP,
        **_DTYPE,
        **_NODE,
        "min": (".min", "any"),
        "max": (".max", "any"),
        "name": (".name", "str"),
    },
}
"""type -> attribute -> (what stands after the value, type of the result)."""

METHODS: dict[tuple[str, str], tuple[int, Type]] = {
    ("target", "has"): (1, "bool"),
    ("capabilities", "has"): (1, "bool"),
    ("capabilities", "lanes"): (1, "num"),
    ("sequence", "index"): (1, "num"),
    ("sequence", "count"): (1, "num"),
    ("any", "index"): (1, "num"),
    ("any", "count"): (1, "num"),
}
"""(type, method) -> (number of operands, type of the result)."""


@dataclass(frozen=True, slots=True)
class Function:
    """A built-in function: its name in generated code, arity, and the type of its result.

    `nodes` says that a captured constant is handed on as the node.
    """

    text: str
    arity: tuple[int, int]
    result: Callable[[Sequence[Type]], Type]
    nodes: bool = False


def element_of(type_: Type) -> Type | None:
    """The type of an item of a sequence; None when it has no items."""
    if type_ == "any":
        return "any"
    if isinstance(type_, tuple):
        return type_[1] if type_[0] == "list" else join_types(*type_[1])
    return None


def join_types(*types: Type) -> Type:
    """The type of a value that is one of these."""
    first = types[0] if types else "any"
    for other in types[1:]:
        if other == first:
            continue
        pair = {str(first), str(other)}
        if pair <= {"num", "bool", "const"}:
            first = "num"
        elif pair <= {"num", "const", "bool", "dim"}:
            first = "dim"
        elif isinstance(first, tuple) and isinstance(other, tuple):
            first = ("list", join_types(element_of(first), element_of(other)))
        else:
            return "any"
    return first


def _fixed(type_: Type) -> Callable[[Sequence[Type]], Type]:
    return lambda types: type_


def _element(types: Sequence[Type]) -> Type:
    return (element_of(types[0]) or "any") if len(types) == 1 else join_types(*types)


def _same(types: Sequence[Type]) -> Type:
    return ("list", element_of(types[0]) or "any")


def _number_or_dim(types: Sequence[Type]) -> Type:
    found = _element(types)
    return found if found in ("dim", "num", "node") else "num" if found in ("const", "bool") else "any"


FUNCTIONS: dict[str, Function] = {
    "len": Function("len", (1, 1), _fixed("num")),
    "zip": Function(
        "zip", (1, 99), lambda types: ("list", ("tuple", tuple(element_of(t) or "any" for t in types)))
    ),
    "range": Function("bounded_range", (1, 3), _fixed(("list", "num"))),
    "all": Function("all", (1, 1), _fixed("bool")),
    "any": Function("any", (1, 1), _fixed("bool")),
    "min": Function("dim_min", (1, 99), _number_or_dim),
    "max": Function("dim_max", (1, 99), _number_or_dim),
    "sum": Function("total", (1, 1), _number_or_dim),
    "prod": Function("prod", (1, 1), _number_or_dim),
    "sorted": Function("sorted", (1, 1), _same),
    "reversed": Function("reversed", (1, 1), _same),
    "tuple": Function("tuple", (1, 1), _same),
    "list": Function("tuple", (1, 1), _same),
    "enumerate": Function(
        "enumerate", (1, 1), lambda types: ("list", ("tuple", ("num", element_of(types[0]) or "any")))
    ),
    "argsort": Function("argsort", (1, 1), _fixed(("list", "num"))),
    "abs": Function("abs", (1, 1), _fixed("num")),
    "int": Function("int", (1, 1), _fixed("num")),
    "float": Function("float", (1, 1), _fixed("num")),
    "bool": Function("bool", (1, 1), _fixed("bool")),
    "gcd": Function("gcd", (2, 2), _fixed("num")),
    "is_nan": Function("is_nan", (1, 1), _fixed("bool")),
    "is_inf": Function("is_inf", (1, 1), _fixed("bool")),
    "lossless": Function("dtypes.lossless", (2, 2), _fixed("bool")),
    "promote": Function("dtypes.promote", (1, 99), _fixed("dtype")),
    "identity": Function("identity", (2, 2), _fixed("num")),
    "const": Function("const", (2, 3), _fixed("node")),
    "like": Function("like", (1, 99), _fixed("node"), nodes=True),
    "all_of": Function("all_of", (1, 1), _fixed("node")),
    "node": Function("dims.to_node", (1, 1), _fixed("node")),
    "dim": Function("dims.to_dim", (1, 1), _fixed("dim"), nodes=True),
    "lower": Function("dims.lower", (1, 1), _fixed("num")),
    "upper": Function("dims.upper", (1, 1), _fixed("num")),
    "strides": Function("dims.strides", (1, 1), _fixed(("list", "dim"))),
}
"""The built-in functions by name."""
