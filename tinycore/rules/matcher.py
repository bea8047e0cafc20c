"""Patterns to tests: the straight-line steps that decide whether one case matches a node.

Steps are text in canonical local names (``n`` is the root, ``n_0`` its first operand, ``n_0_1`` that one's
second), so that cases which begin alike share their first tests. Order: ops of the operands, literals,
identity of repeated variables, deeper operands, dtypes, attributes.

What is known about dtypes comes from the op table: positions whose dtypes are equal by the table are one
class (`Facts`), and a test that the table already answers is not made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tinycore.errors import did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.dtypes import DType
from tinycore.ir.ops import TABLE, Op
from tinycore.rules import syntax as s
from tinycore.rules.expand import Case
from tinycore.rules.parse import check_error

Step = tuple[str, str]
"""What the step is ("if", "do", "for", ...) and its text."""
Type = Any
"""The static type of an expression: a string, ``("list", element)`` or ``("tuple", (elements...))``."""

ATTRIBUTE_TYPES: dict[str, Type] = {
    "dtype": "dtype",
    "value": "num",
    "shape": ("list", "dim"),
    "axes": ("list", "num"),
    "axis": "num",
    "padding": ("list", ("tuple", ("dim", "dim"))),
    "limits": ("list", ("tuple", ("dim", "dim"))),
    "op": "op",
    "lanes": "num",
    "id": "num",
    "slot": "num",
    "kind": "str",
    "name": "str",
    "min": "num",
    "max": "num",
    "multiple_of": "num",
    "scope": "str",
}
"""Static types of attributes by name; all others are ``any``."""


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of generated Python: its text, static type, and what is known of the node that it answers.

    `dtype` and `shape` are texts too; `node` is the local of a captured constant; `width` bounds the bits of
    a number; `frozen` says that a sequence is a tuple all the way down, `whole` that a number is an int.
    """

    text: str
    type: Type
    dtype: str | None = None
    shape: str | None = None
    node: str | None = None
    width: int = 64
    frozen: bool = False
    whole: bool = False


class Pool:
    """Names of the constants that a generated module defines once: ops, dtypes, sets, literal tables."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}  # prefix and definition -> name
        self._counts: Counter[str] = Counter()

    def op(self, name: str) -> str:
        """The name that stands for an op."""
        self.lines[f"O_{name}"] = f"ops.{name}"
        return f"O_{name}"

    def dtype(self, name: str) -> str:
        """The name that stands for a dtype."""
        self.lines[f"D_{name}"] = f'dtypes.by_name("{name}")'
        return f"D_{name}"

    def shared(self, prefix: str, definition: str) -> str:
        """A name for a definition; equal definitions share it."""
        name = self._names.get((prefix, definition))
        if name is None:
            name = self._names[prefix, definition] = f"{prefix}{self._counts[prefix]}"
            self._counts[prefix] += 1
            self.lines[name] = definition
        return name

    def op_set(self, names: tuple[str, ...]) -> str:
        """The name of a frozenset of ops."""
        return self.shared("S_", "frozenset({" + ", ".join(f"ops.{name}" for name in sorted(names)) + "})")

    def dtype_set(self, members: frozenset[DType]) -> str:
        """The name of a frozenset of dtypes."""
        names = ", ".join(
            f'dtypes.by_name("{dtype.name}")' for dtype in sorted(members, key=lambda d: d.name)
        )
        return self.shared("C_", "frozenset({" + names + "})")

    def literal(self, kind: str, value: object, signless: bool = False) -> str:
        """The name of a literal table, see `tinycore.rules.support`."""
        shown = (
            f'float("{value}")'
            if isinstance(value, float) and repr(value) in ("inf", "-inf", "nan")
            else repr(value)
        )
        return self.shared(
            "L_" if kind == "Exact" else "B_", f"{kind}({shown}{', True' if signless else ''})"
        )


ALL_DTYPES = frozenset(dtypes.CLASSES["Any"]) | {dtypes.void}


class Facts:
    """Union-find over positions: equal dtypes, equal shapes, and the dtypes that are possible."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self.known: dict[str, frozenset[DType]] = {}
        self.wanted: dict[str, frozenset[DType]] = {}

    def find(self, term: str) -> str:
        """The representative of a term; the shortest of its class."""
        while (parent := self._parent.setdefault(term, term)) != term:
            term = parent
        return term

    def unite(self, a: str, b: str) -> None:
        """Two terms are equal by the op table."""
        first, second = sorted((self.find(a), self.find(b)), key=lambda term: (len(term), term))
        if first != second:
            self._parent[second] = first
            for table in (self.known, self.wanted):
                if second in table:
                    table[first] = table.get(first, ALL_DTYPES) & table.pop(second)

    def know(self, term: str, members: frozenset[DType]) -> None:
        """The op table says that the dtype is one of these."""
        term = self.find(term)
        self.known[term] = self.known.get(term, ALL_DTYPES) & members

    def want(self, term: str, members: frozenset[DType]) -> None:
        """The rule says that the dtype has to be one of these."""
        term = self.find(term)
        self.wanted[term] = self.wanted.get(term, ALL_DTYPES) & members

    def possible(self, term: str) -> frozenset[DType]:
        """What the dtype can be once the rule's tests have passed."""
        term = self.find(term)
        return self.known.get(term, ALL_DTYPES) & self.wanted.get(term, ALL_DTYPES)


def operand_specs(op: Op, count: int) -> list[str]:
    """The dtype spec of each of `count` operands of an op."""
    if not op.variadic:
        return list(op.operands)
    fixed = len(op.operands) - 1
    return [*op.operands[:fixed], *[op.operands[-1].lstrip("*")] * max(0, count - fixed)]


class Matcher:
    """The steps and captures of one case. Raises RuleCheckError for what does not fit the op table."""

    def __init__(self, file: s.File, case: Case, pool: Pool, signless: bool) -> None:
        self.file, self.case, self.pool, self.signless = file, case, pool, signless
        self.steps: list[Step] = []
        self.captures: dict[str, tuple[str, str]] = {}  # name -> (kind, local)
        self.attributes: dict[str, Code] = {}
        self.type_variables: dict[str, str] = {}  # dtype variable -> dtype term
        self.facts = Facts()
        self._late: list[Step] = []
        self._dtype_equal: list[Step] = []
        self._rest: list[Step] = []
        self._attribute_tests: list[tuple[str, s.Expression, s.Span]] = []
        for name in case.capture:
            self._bind(name, "node", "n", case.pattern)
        self._level([("n", case.pattern)])
        self._finish()

    # --- walking --------------------------------------------------------------------------------------------

    def _level(self, nodes: list[tuple[str, s.Apply]]) -> None:
        """Tests of the operands of nodes whose own op is already known; then one level deeper."""
        unpack: list[Step] = []
        loops: list[Step] = []
        tests: list[Step] = []
        identity: list[Step] = []
        literals: list[tuple[str, s.Literal]] = []
        deeper: list[tuple[str, s.Apply]] = []
        for local, pattern in nodes:
            self._facts_of(local, pattern)
            self._attributes_of(local, pattern)
            for child, operand in self._operands(local, pattern, unpack, loops):
                while isinstance(operand, s.Capture):
                    self._bind(operand.name, "node", child, operand)
                    operand = operand.pattern
                if isinstance(operand, s.Apply):
                    tests.append(("if", self._op_test(child, operand)))
                    deeper.append((child, operand))
                elif isinstance(operand, s.Literal):
                    tests.append(("if", f"{child}.op is {self.pool.op('CONST')}"))
                    literals.append((child, operand))
                elif isinstance(operand, s.Constant):
                    tests.append(("if", f"{child}.op is {self.pool.op('CONST')}"))
                    self._typed(child, operand.type, operand)
                    self._capture(operand.name, "const", child, operand, identity)
                elif isinstance(operand, s.Variable):
                    self._typed(child, operand.type, operand)
                    if operand.name is not None:
                        self._capture(operand.name, "node", child, operand, identity)
        self.steps += unpack + loops + tests
        self.steps += [("if", self._literal_test(child, literal)) for child, literal in literals]
        self.steps += identity
        if deeper:
            self._level(deeper)

    def _operands(
        self, local: str, pattern: s.Apply, unpack: list[Step], loops: list[Step]
    ) -> list[tuple[str, s.Pattern]]:
        """Names for the operands of a node, and the steps that define them."""
        operands = pattern.operands
        rests = [k for k, operand in enumerate(operands) if isinstance(operand, s.Rest)]
        self._arity(pattern, rests)
        if not rests:
            names = [f"{local}_{k}" for k in range(len(operands))]
            if (
                any(TABLE[op].variadic for op in pattern.ops)
                or len({len(TABLE[op].operands) for op in pattern.ops}) > 1
            ):
                unpack.append(("if", f"len({local}.src) == {len(names)}"))
            if names:
                unpack.append(("do", f"{', '.join(names)}{',' if len(names) == 1 else ''} = {local}.src"))
            return list(zip(names, operands, strict=True))
        first, last = rests[0], rests[-1]
        after = len(operands) - last - 1
        if fixed := len(operands) - len(rests):
            unpack.append(("if", f"len({local}.src) >= {fixed}"))
        found: list[tuple[str, s.Pattern]] = []
        for k in range(first):
            unpack.append(("do", f"{local}_{k} = {local}.src[{k}]"))
            found.append((f"{local}_{k}", operands[k]))
        for k in range(after):
            unpack.append(("do", f"{local}_e{k} = {local}.src[{k - after}]"))
            found.append((f"{local}_e{k}", operands[last + 1 + k]))
        stop = f"len({local}.src) - {after}" if after else f"len({local}.src)"
        start, end = str(first), stop
        if len(rests) == 2:
            middle = last - first - 1
            loops.append(("for", f"{local}_at in range({first}, {stop} - {middle - 1})"))
            for k in range(middle):
                loops.append(("do", f"{local}_m{k} = {local}.src[{local}_at + {k}]"))
                found.append((f"{local}_m{k}", operands[first + 1 + k]))
            self._rest_slice(operands[last], f"{local}.src[{local}_at + {middle}:{stop}]")
            end = f"{local}_at"
        self._rest_slice(operands[first], f"{local}.src[{start}:{end}]")
        return found

    def _rest_slice(self, rest: s.Pattern, text: str) -> None:
        assert isinstance(rest, s.Rest)
        if rest.name is None:
            return
        self._bind(rest.name, "rest", f"v_{rest.name}", rest)
        self._rest.append(("do", f"v_{rest.name} = {text}"))

    def _arity(self, pattern: s.Apply, rests: list[int]) -> None:
        if len(rests) > 2 or (len(rests) == 2 and rests[1] == rests[0] + 1):
            raise check_error(self.file, pattern.span, "at most two *rests, and something between them")
        for name in pattern.ops:
            op, count = TABLE[name], len(pattern.operands) - len(rests)
            least = len(op.operands) - op.variadic
            few, many = not rests and count < least, not op.variadic and count > least
            if few or many:
                wanted = f"at least {least}" if op.variadic else str(least)
                raise check_error(self.file, pattern.span, f"{name} takes {wanted} operands, not {count}")

    # --- single tests ---------------------------------------------------------------------------------------

    def _op_test(self, local: str, pattern: s.Apply) -> str:
        if len(pattern.ops) == 1:
            return f"{local}.op is {self.pool.op(pattern.ops[0])}"
        return f"{local}.op in {self.pool.op_set(pattern.ops)}"

    def _literal_test(self, local: str, literal: s.Literal) -> str:
        value = literal.value
        signless = self.signless and value == 0 and type(value) is not bool
        integral = self.facts.possible(f"{local}") <= _INTEGRAL
        if (
            integral
            and (isinstance(value, int) or value.is_integer())
            and not (type(value) is bool and self.facts.possible(local) != {dtypes.bool_})
        ):
            return f"{local}.arg[0] == {int(value)}"
        table = self.pool.literal("Exact", value, signless)
        return f"{local}.arg[0] {'in' if signless else '=='} {table}[{local}.dtype]"

    def _capture(self, name: str, kind: str, local: str, pattern: s.Node, identity: list[Step]) -> None:
        if name in self.captures:
            known_kind, known = self.captures[name]
            if kind == known_kind == "const":
                self._dtype_equal.append((local, known))
                identity.append(("if", f"{local}.arg[0] == {known}.arg[0]"))
                return
            if kind != known_kind:
                raise check_error(self.file, pattern.span, f"{name} is captured twice, as different things")
            identity.append(("if", f"{local} is {known}"))
            self.facts.unite(local, known)  # the test says so
            return
        self._bind(name, kind, local, pattern)

    def _bind(self, name: str, kind: str, local: str, pattern: s.Node) -> None:
        if name.startswith("_"):
            raise check_error(self.file, pattern.span, f"the name {name} starts with an underscore")
        if name in _DTYPE_NAMES or name in TABLE:
            raise check_error(
                self.file, pattern.span, f"a capture cannot be called {name}: that is a dtype or an op"
            )
        if name in self.captures:
            raise check_error(self.file, pattern.span, f"{name} is captured twice")
        self.captures[name] = (kind, local)

    def _typed(self, local: str, type_: str | None, pattern: s.Node) -> None:
        if type_ is None:
            return
        if type_ in _DTYPE_NAMES:
            self._want(local, frozenset({dtypes.by_name(type_)}), pattern, type_)
        elif type_ in dtypes.CLASSES:
            self._want(local, frozenset(dtypes.CLASSES[type_]), pattern, type_)
        elif len(type_) == 1 and type_.isupper():
            self._type_variable(type_, local)
        else:
            raise check_error(
                self.file,
                pattern.span,
                f"there is no dtype or dtype class {type_}",
                did_you_mean(type_, [*dtypes.CLASSES, *_DTYPE_NAMES]),
            )

    def _want(self, local: str, members: frozenset[DType], pattern: s.Node, shown: str) -> None:
        self.facts.want(local, members)
        if not self.facts.possible(local):
            known = self.facts.known.get(self.facts.find(local), ALL_DTYPES)
            names = ", ".join(sorted(dtype.name for dtype in known))
            raise check_error(self.file, pattern.span, f"this can never be {shown}: it is one of {names}")

    def _type_variable(self, name: str, local: str) -> None:
        if name not in self.type_variables:
            self.type_variables[name] = local
        else:
            self._dtype_equal.append((local, self.type_variables[name]))

    def _facts_of(self, local: str, pattern: s.Apply) -> None:
        rows = [TABLE[name] for name in pattern.ops]
        for row in (
            rows if len(rows) == 1 else rows[:1] if len({(r.operands, r.dtype) for r in rows}) == 1 else []
        ):
            variables: dict[str, str] = {"T": local} if row.dtype == "T" else {}
            if row.dtype in _DTYPE_NAMES:
                self.facts.know(local, frozenset({dtypes.by_name(row.dtype)}))
            if any(isinstance(operand, s.Rest) for operand in pattern.operands):
                names = [f"{local}_{k}" for k, operand in enumerate(pattern.operands)]
                names = names[
                    : next(k for k, operand in enumerate(pattern.operands) if isinstance(operand, s.Rest))
                ]
            else:
                names = [f"{local}_{k}" for k in range(len(pattern.operands))]
            for name, spec in zip(names, operand_specs(row, len(names)), strict=False):
                variable, _, class_name = spec.partition(":")
                if variable == "T":
                    self.facts.unite(name, variables.setdefault("T", name))
                    if class_name:
                        self.facts.know(name, frozenset(dtypes.CLASSES[class_name]))
                elif variable in dtypes.CLASSES:
                    self.facts.know(name, frozenset(dtypes.CLASSES[variable]))
                if row.elementwise:
                    self.facts.unite("shape " + name, "shape " + local)

    # --- attributes -----------------------------------------------------------------------------------------

    def _attributes_of(self, local: str, pattern: s.Apply) -> None:
        if pattern.attributes is None:
            return
        rows = {TABLE[name].attributes for name in pattern.ops}
        if len(rows) > 1:
            raise check_error(
                self.file, pattern.span, "ops with different attributes cannot be matched by attribute"
            )
        names = next(iter(rows))
        if len(names) != len(pattern.attributes):
            shown = f"[{', '.join(names)}]" if names else "no attributes"
            raise check_error(
                self.file,
                pattern.span,
                f"{pattern.ops[0]} has {shown}, not {len(pattern.attributes)}",
                "write _ for those that do not matter",
            )
        kept = [name for name in names if name != "dtype"]
        for name, attribute in zip(names, pattern.attributes, strict=True):
            if name == "dtype":
                self._dtype_attribute(local, attribute)
                continue
            text = f"{local}.arg[{kept.index(name)}]" if len(kept) > 1 else f"{local}.arg"
            if pattern.ops == ("CONST",) and name == "value":
                text = f"{local}.value"
            if attribute.name is not None:
                if attribute.name[0].isupper():
                    raise check_error(
                        self.file,
                        attribute.span,
                        f"the attribute {name} is no dtype: bind it with a lower-case name",
                    )
                self._bind(attribute.name, "attribute", text, attribute)
                self.attributes[attribute.name] = Code(text, ATTRIBUTE_TYPES.get(name, "any"), frozen=True)
            elif attribute.equal is not None:
                self._attribute_tests.append((text, attribute.equal, attribute.span))

    def _dtype_attribute(self, local: str, attribute: s.AttributePattern) -> None:
        name = attribute.name
        if attribute.equal is not None:
            if not isinstance(attribute.equal, s.Name) or attribute.equal.name not in _DTYPE_NAMES:
                raise check_error(self.file, attribute.span, "a dtype belongs here")
            name = attribute.equal.name
        if name is not None and name[0].islower() and name not in _DTYPE_NAMES:
            self._bind(name, "attribute", f"{local}.dtype", attribute)
            self.attributes[name] = Code(f"{local}.dtype", "dtype")
        elif name is not None:
            self._typed(local, name, attribute)

    # --- the end --------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        for a, b in self._dtype_equal:
            if self.facts.find(a) != self.facts.find(b):
                self._late.append(("if", f"{self.dtype_of(a)} is {self.dtype_of(b)}"))
                self.facts.unite(a, b)
        for term, members in self.facts.wanted.items():
            known = self.facts.known.get(term, ALL_DTYPES)
            if not known <= members:
                left = known & members
                test = (
                    f"is {self.pool.dtype(next(iter(left)).name)}"
                    if len(left) == 1
                    else (f"in {self.pool.dtype_set(members)}")
                )
                self._late.append(("if", f"{term}.dtype {test}"))
        self.steps += self._late
        self.steps += self._rest

    def dtype_of(self, local: str) -> str:
        """The text of the dtype of a position."""
        return f"{self.facts.find(local)}.dtype"

    def is_index(self, dtype: str) -> bool:
        """Whether the text of a dtype surely stands for `index`."""
        local = dtype.removesuffix(".dtype")
        return dtype == "D_index" or (local != dtype and self.facts.possible(local) == {dtypes.index})

    def shape_of(self, local: str) -> str:
        """The text of the shape of a position; that of a constant is cheapest to ask for."""
        term = self.facts.find("shape " + local)
        for kind, other in self.captures.values():
            if kind == "const" and self.facts.find("shape " + other) == term:
                return f"{other}.arg[1]"
        return f"{term.removeprefix('shape ')}.shape"


_INTEGRAL = frozenset(dtypes.CLASSES["Integral"])
_DTYPE_NAMES = {dtype.name for dtype in ALL_DTYPES}
