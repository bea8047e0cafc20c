"""Expressions to Python text, with static types.

A name is a node, a captured constant, a number, a dtype, a list, ...; an operator on a node builds a node, on
numbers it is arithmetic. A number in node position becomes a CONST of the dtype and shape that its siblings
have, or that the result must have. Comparisons in a condition never build nodes: on nodes they ask for
identity, on symbolic dimensions for what surely holds, and ``not`` is pushed down to them.
"""

from __future__ import annotations

from tinycore.errors import RuleCheckError, did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE
from tinycore.rules import syntax as s
from tinycore.rules.builtins import ATTRIBUTES, FUNCTIONS, METHODS, element_of, join_types
from tinycore.rules.matcher import Code, Matcher, Pool, Type, operand_specs
from tinycore.rules.parse import check_error

NUMBERS = ("num", "bool", "const")
MAXIMUM_WIDTH = 2048
"""Numbers that could become wider than this many bits are refused."""
_HELPERS = {"+": "dim_add", "-": "dim_sub", "*": "dim_mul", "//": "dim_floordiv", "%": "dim_mod"}
_NEGATED = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}
_SURELY = {"<": "surely_lt", "<=": "surely_le", "==": "surely_eq", "!=": "surely_ne"}


class Expressions:
    """Compiles the expressions of one case; `names` maps what the rule has bound to its code."""

    def __init__(
        self, file: s.File, pool: Pool, natives: dict[str, s.Native], matcher: Matcher | None
    ) -> None:
        self.file, self.pool, self.natives, self.matcher = file, pool, natives, matcher
        self.names: dict[str, Code] = {}
        self.used: set[str] = set()
        self._values: dict[int, tuple[s.Expression, Code]] = {}  # by id; the expression keeps its id alive
        self._types: dict[int, tuple[s.Expression, Type]] = {}

    def error(self, at: s.Node, what: str, hint: str | None = None) -> RuleCheckError:
        """A RuleCheckError that points at an expression."""
        return check_error(self.file, at.span, what, hint)

    # --- types ----------------------------------------------------------------------------------------------

    def type_of(self, e: s.Expression) -> Type:
        """The static type, without compiling what would need an expected dtype."""
        if id(e) not in self._types:
            self._types[id(e)] = (e, self._type_of(e))
        return self._types[id(e)][1]

    def _type_of(self, e: s.Expression) -> Type:
        if isinstance(e, s.Build):
            return "node"
        if isinstance(e, s.Binary) and e.operator != "in":
            types = (self.type_of(e.left), self.type_of(e.right))
            if "node" in types:
                return "node"
            return "bool" if e.operator in _NEGATED else join_types(*types) if "const" not in types else "num"
        if isinstance(e, s.Unary) and e.operator == "-":
            return "node" if self.type_of(e.operand) == "node" else "num"
        if isinstance(e, s.Conditional):
            types = (self.type_of(e.yes), self.type_of(e.no))
            return "node" if "node" in types else join_types(*types)
        return self.value(e).type

    def is_node(self, e: s.Expression) -> bool:
        """Whether an expression surely answers a node."""
        return bool(self.type_of(e) == "node")

    # --- values ---------------------------------------------------------------------------------------------

    def value(self, e: s.Expression) -> Code:
        """The code of an expression where nothing is expected of its dtype."""
        known = self._values.get(id(e))
        if known is None:
            known = self._values[id(e)] = (e, self._value(e))
        return known[1]

    def _value(self, e: s.Expression) -> Code:
        match e:
            case s.Number(value):
                return self._number(e, value)
            case s.Text(value):
                return Code(repr(value), "str")
            case s.Name():
                return self._name(e)
            case s.Binary("in", left, right):
                return Code(f"({self.value(left).text} in {self.value(right).text})", "bool")
            case s.Binary():
                return self._binary(e)
            case s.Unary("not") | s.Logical():
                return Code(self.truth(e), "bool")
            case s.Unary(_, operand):
                if self.is_node(operand):
                    return self.node(e)
                inner = self.value(operand)
                return Code(f"(-{inner.text})", "num", width=inner.width, whole=inner.whole)
            case s.Conditional():
                if self.is_node(e):
                    return self.node(e)
                yes, no = self.value(e.yes), self.value(e.no)
                return Code(
                    f"({yes.text} if {self.truth(e.condition)} else {no.text})",
                    join_types(yes.type, no.type),
                    width=max(yes.width, no.width),
                )
            case s.Attribute():
                return self._attribute(e)
            case s.Method():
                return self._method(e)
            case s.Item():
                return self._item(e)
            case s.Slice():
                return self._slice(e)
            case s.Call():
                return self._call(e)
            case s.Build():
                return self.node(e)
            case s.Sequence():
                return self._sequence(e)
            case s.Comprehension():
                return self._comprehension(e)
        raise self.error(e, "a * belongs among operands or items")

    def _number(self, e: s.Node, value: bool | int | float) -> Code:
        if isinstance(value, float) and repr(value) in ("inf", "-inf", "nan"):
            return Code(f'float("{value}")', "num")
        width = value.bit_length() if isinstance(value, int) else 64
        if width > MAXIMUM_WIDTH:
            raise self.error(e, f"a number of {width} bits; the limit is {MAXIMUM_WIDTH}")
        text = repr(value)
        return Code(
            f"({text})" if text.startswith("-") else text,
            "bool" if value is True or value is False else "num",
            width=width,
            whole=type(value) is int,
        )

    def _name(self, e: s.Name) -> Code:
        name = e.name
        if name in self.names:
            self.used.add(name)
            return self.names[name]
        if name in TABLE:
            return Code(self.pool.op(name), "op")
        if name in _DTYPE_NAMES:
            return Code(self.pool.dtype(name), "dtype")
        hint = did_you_mean(name, [*self.names, *FUNCTIONS, *self.natives])
        if name == "target":
            hint = "say @requires(target) after the group's head"
        raise self.error(e, f"{name} is not bound", hint)

    def _binary(self, e: s.Binary) -> Code:
        if self.is_node(e):
            return self.node(e)
        left, right = self.value(e.left), self.value(e.right)
        operator = e.operator
        if operator in _NEGATED:
            return Code(self._compare(e, operator), "bool")
        width = left.width + right.width if operator == "*" else max(left.width, right.width) + 1
        if operator == "<<":
            return Code(
                f"shift_left({left.text}, {right.text})",
                "num",
                width=4096 if width < MAXIMUM_WIDTH else width,
            )
        if left.type in NUMBERS and right.type in NUMBERS:
            if width > MAXIMUM_WIDTH:
                raise self.error(e, f"the result could have {width} bits; the limit is {MAXIMUM_WIDTH}")
            whole = left.whole and right.whole and operator != "/"
            return Code(f"({left.text} {operator} {right.text})", "num", width=width, whole=whole)
        if operator in _HELPERS:
            return Code(f"{_HELPERS[operator]}({left.text}, {right.text})", join_types(left.type, right.type))
        return Code(f"({left.text} {operator} {right.text})", "any")

    # --- conditions -----------------------------------------------------------------------------------------

    def truth(self, e: s.Expression, negated: bool = False) -> str:
        """The code of a condition."""
        if isinstance(e, s.Unary) and e.operator == "not":
            return self.truth(e.operand, not negated)
        if isinstance(e, s.Logical):
            word = e.operator if not negated else {"and": "or", "or": "and"}[e.operator]
            return f"({self.truth(e.left, negated)} {word} {self.truth(e.right, negated)})"
        if isinstance(e, s.Binary) and e.operator in _NEGATED:
            return self._compare(e, _NEGATED[e.operator] if negated else e.operator)
        if isinstance(e, s.Number):
            return repr(bool(e.value) != negated)
        if self.is_node(e):
            raise self.error(
                e, "a node is neither true nor false here", "compare its bounds: x.vmin > 0, x.vmax < n"
            )
        text = self.value(e).text
        return f"(not {text})" if negated else text

    def _compare(self, e: s.Binary, operator: str) -> str:
        left, right = self.value(e.left), self.value(e.right)
        nodes = "node" in (left.type, right.type)
        if nodes and operator not in ("==", "!="):
            raise self.error(
                e, "the order of two nodes is not known while rules run", "compare bounds: x.vmax < y.vmin"
            )
        a, b = left.node or left.text, right.node or right.text
        if nodes:
            return f"({a} {'is' if operator == '==' else 'is not'} {b})"
        identical = ("dtype", "op")
        if left.type in identical and left.type == right.type and operator in ("==", "!="):
            return f"({left.text} {'is' if operator == '==' else 'is not'} {right.text})"
        simple = (*NUMBERS, "str", "dtype", "op", "none")
        if left.type in simple and right.type in simple:
            return f"({left.text} {operator} {right.text})"
        if operator in (">", ">="):
            return f"{_SURELY['<' if operator == '>' else '<=']}({right.text}, {left.text})"
        return f"{_SURELY[operator]}({left.text}, {right.text})"

    # --- parts of values ----------------------------------------------------------------------------------

    def _attribute(self, e: s.Attribute) -> Code:
        base = self.value(e.value)
        if e.name.startswith("_"):
            raise self.error(e, f"the name {e.name} starts with an underscore")
        kind = "node" if base.type == "const" else base.type
        if e.name == "dtype" and base.dtype is not None:
            return Code(base.dtype, "dtype")
        table = ATTRIBUTES.get(kind if isinstance(kind, str) else "sequence", {})
        if e.name not in table:
            known = sorted(table)
            shown = kind if isinstance(kind, str) else kind[0]
            raise self.error(
                e,
                f"a {shown} has no attribute {e.name}",
                did_you_mean(e.name, known) or (f"it has {', '.join(known)}" if known else None),
            )
        suffix, type_ = table[e.name]
        return Code((base.node or base.text) + suffix, type_, frozen=True, whole=e.name in ("vmin", "vmax"))

    def _method(self, e: s.Method) -> Code:
        base = self.value(e.value)
        kind = base.type if isinstance(base.type, str) else "sequence"
        if (kind, e.name) not in METHODS:
            known = [name for base_kind, name in METHODS if base_kind == kind]
            raise self.error(e, f"a {kind} has no method {e.name}", did_you_mean(e.name, known))
        count, type_ = METHODS[kind, e.name]
        if len(e.operands) != count:
            raise self.error(e, f"{e.name} takes {count} operands, not {len(e.operands)}")
        operands = ", ".join(self.value(operand).text for operand in e.operands)
        return Code(f"{base.text}.{e.name}({operands})", type_)

    def _item(self, e: s.Item) -> Code:
        base, index = self.value(e.value), self.value(e.index)
        type_ = element_of(base.type)
        if isinstance(base.type, tuple) and base.type[0] == "tuple" and isinstance(e.index, s.Number):
            position = int(e.index.value)
            if not -len(base.type[1]) <= position < len(base.type[1]):
                raise self.error(e, f"there is no item {position} among {len(base.type[1])}")
            type_ = base.type[1][position]
        if type_ is None:
            raise self.error(e, f"a {base.type} has no items")
        return Code(f"{base.text}[{index.text}]", type_, frozen=base.frozen)

    def _slice(self, e: s.Slice) -> Code:
        base = self.value(e.value)
        start, stop = ("" if part is None else self.value(part).text for part in (e.start, e.stop))
        element = element_of(base.type)
        if element is None:
            raise self.error(e, f"a {base.type} has no items")
        return Code(
            f"{base.text}[{start}:{stop}]",
            "any" if base.type == "any" else ("list", element),
            frozen=base.frozen,
        )

    def _sequence(self, e: s.Sequence) -> Code:
        texts, types = [], []
        for item in e.items:
            code = self.value(item.value if isinstance(item, s.Splat) else item)
            element = element_of(code.type) if isinstance(item, s.Splat) else code.type
            texts.append("*" * isinstance(item, s.Splat) + code.text)
            types.append("any" if element is None else element)
        splats = any(isinstance(item, s.Splat) for item in e.items)
        text = "(" + ", ".join(texts) + ("," if len(texts) == 1 else "") + ")"
        kind: Type = (
            ("list", join_types(*types) if types else "any")
            if splats or len(set(map(str, types))) <= 1
            else ("tuple", tuple(types))
        )
        return Code(text, kind, frozen=all(isinstance(type_, str) and type_ != "any" for type_ in types))

    def _comprehension(self, e: s.Comprehension, expected: tuple[str, str] | None = None) -> Code:
        saved = dict(self.names)
        loops = []
        for loop in e.loops:
            items = self.value(loop.items)
            element = element_of(items.type)
            if element is None:
                raise self.error(loop, f"a {items.type} has no items")
            target = self._target(loop, loop.target, element)
            condition = f" if {self.truth(loop.condition)}" if loop.condition is not None else ""
            loops.append(f" for {target} in {items.text}{condition}")
        if expected is not None or self.is_node(e.item):
            item = self.node(e.item, *(expected or (None, None)))
        else:
            item = self.value(e.item)
        self.names = saved
        return Code(f"[{item.text}{''.join(loops)}]", ("list", item.type))

    def _target(self, loop: s.Loop, target: object, type_: Type) -> str:
        if isinstance(target, str):
            if target == "_":
                return "_"
            if target in _DTYPE_NAMES or target.startswith("_"):
                raise self.error(loop, f"{target} cannot be a name here")
            self.names[target] = Code(f"v_{target}", type_, frozen=True)
            return f"v_{target}"
        assert isinstance(target, tuple)
        if isinstance(type_, tuple) and type_[0] == "tuple":
            if len(type_[1]) != len(target):
                raise self.error(loop, f"{len(target)} names for {len(type_[1])} items")
            types = list(type_[1])
        else:
            types = [element_of(type_) or "any"] * len(target)
        parts = [self._target(loop, part, kind) for part, kind in zip(target, types, strict=True)]
        return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"

    # --- calls ----------------------------------------------------------------------------------------------

    def _call(self, e: s.Call) -> Code:
        if e.name in self.natives:
            return self._native(e, self.natives[e.name])
        function = FUNCTIONS.get(e.name)
        if function is None:
            raise self.error(
                e, f"there is no function {e.name}", did_you_mean(e.name, [*FUNCTIONS, *self.natives])
            )
        codes, texts = [], []
        for operand in e.operands:
            inner = operand.value if isinstance(operand, s.Splat) else operand
            code = self.value(inner)
            codes.append(code)
            texts.append(
                "*" * isinstance(operand, s.Splat) + ((code.node if function.nodes else None) or code.text)
            )
        splats = any(isinstance(operand, s.Splat) for operand in e.operands)
        low, high = function.arity
        if not splats and not low <= len(codes) <= high:
            wanted = str(low) if low == high else f"{low} or more" if high > 9 else f"{low} to {high}"
            raise self.error(e, f"{e.name} takes {wanted} operands, not {len(codes)}")
        return Code(f"{function.text}({', '.join(texts)})", function.result([code.type for code in codes]))

    def _native(self, e: s.Call, native: s.Native) -> Code:
        if len(e.operands) != len(native.parameters):
            raise self.error(e, f"{e.name} takes {len(native.parameters)} operands, not {len(e.operands)}")
        texts = ["ctx"] if "ctx" in native.flags else []
        for operand, kind in zip(e.operands, native.parameters, strict=True):
            code = self.value(operand)
            if kind.name == "node":
                if code.type not in ("node", "const", "any"):
                    raise self.error(operand, f"{e.name} takes a node here")
                code = self.node(operand)
            texts.append(code.text)
        return Code(f"f_{e.name}({', '.join(texts)})", kind_type(native.result))

    # --- nodes ----------------------------------------------------------------------------------------------

    def node(self, e: s.Expression, dtype: str | None = None, shape: str | None = None) -> Code:
        """The code of an expression in node position, where a number takes the expected dtype and shape."""
        if isinstance(e, s.Conditional):
            yes, no = self.node(e.yes, dtype, shape), self.node(e.no, dtype, shape)
            same = yes.dtype if yes.dtype == no.dtype else None
            return Code(
                f"({yes.text} if {self.truth(e.condition)} else {no.text})",
                "node",
                same,
                yes.shape if yes.shape == no.shape else None,
            )
        if isinstance(e, s.Build):
            return self._build(e, e.op, e.attributes, e.operands, dtype, shape)
        if isinstance(e, s.Binary) and self.is_node(e):
            operands = (e.right, e.left) if e.operator in (">", ">=") else (e.left, e.right)
            return self._build(e, s.INFIX[e.operator], None, operands, dtype, shape)
        if isinstance(e, s.Unary) and self.is_node(e):
            return self._build(e, "NEG", None, (e.operand,), dtype, shape)
        code = self.value(e)
        if code.type == "node":
            return code
        if code.type == "const" and code.node is not None:
            known = self.const_dtype(code.node), self.const_shape(code.node)
            if dtype in (None, known[0]) and shape in (None, known[1]):
                return Code(code.node, "node", *known)
            dtype, shape = dtype or known[0], shape or known[1]
            return Code(f"coerce({code.node}, {dtype}, {shape})", "node", dtype, shape)
        if code.type in NUMBERS:
            if dtype is None:
                raise self.error(
                    e,
                    "the dtype of this number is not known here",
                    "write const(float32, 1) or const(x.dtype, 1)",
                )
            return self._constant(e, code, dtype, shape or "()")
        if code.type in ("any", "dim"):
            expected = dtype or (self.pool.dtype("index") if code.type == "dim" else None)
            text = f"as_node({code.text}{f', {expected}, {shape or ()}' if expected else ''})"
            return Code(text, "node", expected if code.type == "dim" else None)
        raise self.error(
            e, f"a node belongs here, not a {code.type if isinstance(code.type, str) else code.type[0]}"
        )

    def _constant(self, e: s.Expression, code: Code, dtype: str, shape: str) -> Code:
        if not isinstance(e, s.Number):
            if code.whole and self.matcher is not None and self.matcher.is_index(dtype):
                return Code(
                    f"UOp({self.pool.op('CONST')}, {dtype}, (), ({code.text}, {shape}))", "node", dtype, shape
                )
            return Code(f"const({dtype}, {code.text}, {shape})", "node", dtype, shape)
        if dtype in ("D_index", "D_bool"):
            bits = str(int(e.value)) if dtype == "D_index" else str(int(bool(e.value)))
        else:
            bits = f"{self.pool.literal('Bits', e.value)}[{dtype}]"
        return Code(f"UOp({self.pool.op('CONST')}, {dtype}, (), ({bits}, {shape}))", "node", dtype, shape)

    def const_dtype(self, local: str) -> str:
        """The text of the dtype of a captured constant."""
        return self.matcher.dtype_of(local) if self.matcher is not None else f"{local}.dtype"

    def const_shape(self, local: str) -> str:
        """The text of the shape of a captured constant."""
        return self.matcher.shape_of(local) if self.matcher is not None else f"{local}.shape"

    def _build(
        self,
        e: s.Node,
        name: str,
        attributes: tuple[s.Expression, ...] | None,
        operands: tuple[s.Expression, ...],
        dtype: str | None,
        shape: str | None,
    ) -> Code:
        from tinycore.rules.building import build

        return build(self, e, name, attributes, operands, dtype, shape)

    def node_list(self, e: s.Expression, dtype: str | None) -> str:
        """The code of a list of nodes after a ``*``."""
        if isinstance(e, s.Comprehension):
            return self._comprehension(e, (dtype, "()") if dtype else None).text
        code = self.value(e)
        element = element_of(code.type)
        if element is None:
            raise self.error(e, "a list of nodes belongs here")
        if element == "node":
            return code.text
        return f"[as_node(v, {dtype}) for v in {code.text}]"


def kind_type(kind: s.Kind) -> Type:
    """The static type of a native's declared kind."""
    if kind.name == "list":
        return ("list", kind_type(kind.element) if kind.element is not None else "any")
    return {
        "int": "num",
        "float": "num",
        "number": "num",
        "value": "num",
        "shape": ("list", "dim"),
        "bool": "bool",
        "nodes": ("list", "node"),
        "ints": ("list", "num"),
        "string": "str",
    }.get(kind.name, kind.name)


_DTYPE_NAMES = {dtype.name for dtype in (*dtypes.CLASSES["Any"], dtypes.void)}
__all__ = ["Expressions", "kind_type", "operand_specs"]
