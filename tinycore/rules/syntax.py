"""The syntax tree of a `.rules` file: frozen dataclasses, each with the place it came from.

Patterns (left of ``=>``) and expressions (guards, right of ``=>``) are two families. Infix operators of
patterns are already applications of ops here; those of expressions stay `Binary`, because whether ``a + b``
builds a node or adds two numbers depends on what ``a`` and ``b`` are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tinycore.rules.infix import INFIX as INFIX


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a file; lines and columns count from 1."""

    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """Base of all tree nodes. `span` takes no part in comparison, so that equal code is equal."""

    span: Span = field(default=Span(), compare=False, kw_only=True, repr=False)


# --- patterns ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """``x`` or ``x:Int``; the name None is the wildcard ``_``."""

    name: str | None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """``$c``: a CONST whose value is `name`."""

    name: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A CONST of exactly this value."""

    value: bool | int | float


@dataclass(frozen=True, slots=True)
class AttributePattern(Node):
    """One attribute of an application: a name to bind, or an expression to be equal to; both None: any."""

    name: str | None = None
    equal: Expression | None = None


@dataclass(frozen=True, slots=True)
class Apply(Node):
    """``OP[attributes](operands)``; `ops` are names of ops, op classes or loop variables."""

    ops: tuple[str, ...]
    attributes: tuple[AttributePattern, ...] | None
    ordered: bool
    operands: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Rest(Node):
    """``*xs`` among operands: any number of them."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Capture(Node):
    """``name@pattern``."""

    name: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class ViewUse(Node):
    """A view used as a pattern."""

    name: str
    operands: tuple[Pattern, ...]


Pattern: TypeAlias = "Variable | Constant | Literal | Apply | Rest | Capture | ViewUse"

# --- expressions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number, ``true`` or ``false``."""

    value: bool | int | float


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A string."""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A capture, a ``let`` name, a dtype, an op or a dtype variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """An infix operator on two operands; comparisons too."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """``-x`` or ``not x``."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Logical(Node):
    """``and`` or ``or``."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """``yes if condition else no``."""

    yes: Expression
    condition: Expression
    no: Expression


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """``value.name``."""

    value: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Method(Node):
    """``value.name(operands)``."""

    value: Expression
    name: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Item(Node):
    """``value[index]``."""

    value: Expression
    index: Expression


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """``value[start:stop]``."""

    value: Expression
    start: Expression | None
    stop: Expression | None


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A built-in function, a native or a view."""

    name: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Build(Node):
    """``OP[attributes](operands)`` on the right: a new node."""

    op: str
    attributes: tuple[Expression, ...] | None
    operands: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Sequence(Node):
    """A list or a tuple; both are tuples in the end."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Splat(Node):
    """``*items`` among operands or items."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """One ``for target in items if condition`` of a comprehension; a target is a name or several."""

    target: str | tuple[object, ...]
    items: Expression
    condition: Expression | None


@dataclass(frozen=True, slots=True)
class Comprehension(Node):
    """``[item for target in items]``."""

    item: Expression
    loops: tuple[Loop, ...]


Expression: TypeAlias = (
    "Number | Text | Name | Binary | Unary | Logical | Conditional | Attribute | Method | Item | Slice | "
    "Call | Build | Sequence | Splat | Comprehension"
)

# --- items ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Guard(Node):
    """``if condition``."""

    condition: Expression


@dataclass(frozen=True, slots=True)
class Let(Node):
    """``let name = value``; also the bindings of a block."""

    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Annotation(Node):
    """``@name(arguments)``."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Declaration(Node):
    """A leaf of a test: ``a: float32[4, 4]``, ``i: index in 0..7``; or ``has OP`` when `dtype` is None."""

    name: str
    dtype: str | None = None
    shape: tuple[Expression, ...] = ()
    bounds: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Test(Node):
    """An inline test; `after` None means ``same``: the rule does not match."""

    __test__ = False
    before: Expression
    after: Expression | None
    declarations: tuple[Declaration, ...]


@dataclass(frozen=True, slots=True)
class Rule(Node):
    """One rewrite rule, ``vjp`` rule or ``render`` rule.

    `kind` says which. `result` has one expression for a rewrite, one for every operand for a ``vjp`` (None
    for ``none``), a `Text` for every line of a ``render``. `names` are the cotangent and the output of a vjp.
    """

    kind: str
    name: str
    pattern: Pattern
    clauses: tuple[Guard | Let, ...]
    block: tuple[Let, ...]
    result: tuple[Expression | None, ...]
    annotations: tuple[Annotation, ...]
    tests: tuple[Test, ...]
    why: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForBlock(Node):
    """``for OP in (A|B) { ... }``."""

    variable: str
    values: tuple[str, ...]
    items: tuple[Rule | ForBlock, ...]


@dataclass(frozen=True, slots=True)
class Group(Node):
    """An ordered list of rules; `kinds` as written: bottom_up, top_down, fixpoint, vjp, render."""

    name: str
    kinds: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    items: tuple[Rule | ForBlock, ...]


@dataclass(frozen=True, slots=True)
class View(Node):
    """A macro, used on both sides."""

    name: str
    parameters: tuple[str, ...]
    body: Pattern


@dataclass(frozen=True, slots=True)
class Kind:
    """The declared type of a native's parameter or result."""

    name: str
    optional: bool = False
    element: Kind | None = None


@dataclass(frozen=True, slots=True)
class Native(Node):
    """A declared Python function."""

    name: str
    parameters: tuple[Kind, ...]
    result: Kind
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Import(Node):
    """``from module import names``."""

    module: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Strategy(Node):
    """``kind`` is name, union, seq, or a driver (bottom_up, top_down, fixpoint)."""

    kind: str
    name: str = ""
    parts: tuple[Strategy, ...] = ()


@dataclass(frozen=True, slots=True)
class PassDeclaration(Node):
    """``pass name = strategy``."""

    name: str
    strategy: Strategy
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole file."""

    path: str
    text: str
    imports: tuple[Import, ...]
    natives: tuple[Native, ...]
    views: tuple[View, ...]
    groups: tuple[Group, ...]
    passes: tuple[PassDeclaration, ...]
