"""The op table: the single source of truth about every op.

One row an op. The rule checker, the verifier, the shape and bounds inference, the interpreter, the
text form, the hypothesis strategies and ``specs/uops.md`` are derived from it.

Three levels share one node type (a row says at which of them its op may stand):

- *tensor*: whole arrays; movement ops; no loops.
- *kernel*: scalar values over `RANGE` nodes and index arithmetic; movement is gone.
- *program*: a linear list of statements; values may have lanes (their shape is ``()`` or ``(lanes,)``).

Operands are described by dtype classes (`tinycore.ir.dtypes.CLASSES`) or dtype variables: ``T:Number``
binds T to a number dtype, a later ``T`` must be the same dtype. A leading ``*`` means any number.
Attributes live in `UOp.arg`: a single one *is* the arg, several form a tuple in the order of the row;
the attribute called ``dtype`` is `UOp.dtype` itself.

>>> ops.ADD.commutative, ops.CAST.attributes, ops.REDUCE.attributes
(True, ('dtype',), ('op', 'axes'))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["tensor", "kernel", "program"]
ALL: tuple[Level, ...] = ("tensor", "kernel", "program")
TENSOR: tuple[Level, ...] = ("tensor",)
KERNEL: tuple[Level, ...] = ("kernel",)
PROGRAM: tuple[Level, ...] = ("program",)
LOWERED: tuple[Level, ...] = ("kernel", "program")


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One row of the op table. Compare with ``is``; hashing is by identity and fast.

    Attributes
    ----------
    name: the upper-case name used in text and rules.
    number: position in the table.
    bit: ``1 << number``, the op's bit in `UOp.mask`.
    operands: dtype class or variable of each operand, see the module's docstring.
    attributes: names of the attributes, see the module's docstring.
    dtype: rule for the result: a dtype variable, a dtype name, or "attribute".
    shape: name of the rule in `tinycore.ir.shapes`.
    bounds: name of the rule in `tinycore.ir.bounds`, or "dtype" (nothing better than the dtype is known).
    levels: where the op may stand.
    elementwise, movement, commutative, associative, idempotent: algebraic facts.
    identity: for a monoid, which value leaves the other operand alone ("zero", "one", "min", "max", "ones").
    statement: produces no value (dtype void).
    summary: one line of documentation; the meaning for corner cases is part of it.
    """

    name: str
    number: int
    operands: tuple[str, ...]
    attributes: tuple[str, ...]
    dtype: str
    shape: str
    bounds: str
    levels: tuple[Level, ...]
    elementwise: bool = False
    movement: bool = False
    commutative: bool = False
    associative: bool = False
    idempotent: bool = False
    identity: str | None = None
    statement: bool = False
    bit: int = 0
    summary: str = ""

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[object, ...]:
        return by_name, (self.name,)

    @property
    def variadic(self) -> bool:
        """Whether the last operand may repeat."""
        return bool(self.operands) and self.operands[-1].startswith("*")


TABLE: dict[str, Op] = {}
"""Every op by name, in table order."""


def by_name(name: str) -> Op:
    """The op of that name; KeyError when there is none.

    >>> by_name("ADD") is ops.ADD
    True
    """
    return TABLE[name]


class _Ops:
    """Namespace: ``ops.ADD`` is the row called ADD."""

    def __getattr__(self, name: str) -> Op:  # only reached for unknown names
        raise AttributeError(f"there is no op {name!r}")

    def __iter__(self) -> Iterator[Op]:
        return iter(TABLE.values())


ops = _Ops()


def _row(
    name: str,
    operands: str,
    attributes: str,
    dtype: str,
    shape: str,
    summary: str,
    *,
    bounds: str = "dtype",
    levels: tuple[Level, ...] = ALL,
    identity: str | None = None,
    flags: str = "",
) -> Op:
    words = set(flags.split())
    op = Op(
        name=name,
        number=len(TABLE),
        operands=tuple(operands.split()),
        attributes=tuple(attributes.split()),
        dtype=dtype,
        shape=shape,
        bounds=bounds,
        levels=levels,
        elementwise=shape == "elementwise",
        movement="movement" in words,
        commutative="commutative" in words,
        associative="associative" in words,
        idempotent="idempotent" in words,
        identity=identity,
        statement=dtype == "void",
        bit=1 << len(TABLE),
        summary=summary,
    )
    TABLE[name] = op
    setattr(ops, name, op)
    return op


# One row an op, to be read as a table.
# fmt: off
# --- leaves -----------------------------------------------------------------------------------------------
_row("CONST", "", "dtype value shape", "attribute", "attribute", "A constant; `value` is its canonical bits.",
     bounds="const")
_row("VARIABLE", "", "name min max multiple_of", "index", "scalar",
     "A symbolic integer, min <= value <= max, divisible by multiple_of; bound when a program runs.",
     bounds="variable")
_row("BUFFER", "", "dtype id shape device", "attribute", "attribute",
     "Stored elements, contiguous in row-major order, on one device.", levels=("tensor", "kernel"))
_row("PARAM", "", "dtype slot shape", "attribute", "attribute",
     "A numbered buffer argument of a kernel or of a CALL body.")
_row("SCRATCH", "", "dtype scope id shape", "attribute", "attribute",
     "Memory that a kernel owns: scope `local` is shared by a work-group, `private` belongs to one work-item.",
     levels=LOWERED)

# --- elementwise: unary -----------------------------------------------------------------------------------
_row("NEG", "T:Number", "", "T", "elementwise", "-x; integers wrap.", bounds="neg")
_row("SQRT", "T:Float", "", "T", "elementwise", "Square root, correctly rounded; NaN below zero, -0.0 for -0.0.")
_row("EXP", "T:Float", "", "T", "elementwise", "e to the x.")
_row("EXP2", "T:Float", "", "T", "elementwise", "2 to the x.")
_row("LOG", "T:Float", "", "T", "elementwise", "Natural logarithm; -inf at zero, NaN below.")
_row("LOG2", "T:Float", "", "T", "elementwise", "Logarithm to base 2; -inf at zero, NaN below.")
_row("SIN", "T:Float", "", "T", "elementwise", "Sine of radians; NaN at infinities.")
_row("COS", "T:Float", "", "T", "elementwise", "Cosine of radians; NaN at infinities.")
_row("TANH", "T:Float", "", "T", "elementwise", "Hyperbolic tangent.")
_row("ERF", "T:Float", "", "T", "elementwise", "Error function.")
_row("FLOOR", "T:Float", "", "T", "elementwise", "Greatest integer not above x; keeps -0.0.")
_row("TRUNC", "T:Float", "", "T", "elementwise", "x towards zero to an integer; keeps the sign of zero.")
_row("ROUND", "T:Float", "", "T", "elementwise", "Nearest integer, halves to even; keeps the sign of zero.")
_row("CAST", "Any", "dtype", "attribute", "elementwise",
     "Value conversion: int to int wraps, float to int truncates and saturates (NaN gives 0), to bool is x != 0.",
     bounds="cast")
_row("BITCAST", "Any", "dtype", "attribute", "elementwise", "The same bits as another dtype of the same size.")

# --- elementwise: binary ----------------------------------------------------------------------------------
_row("ADD", "T:Any T", "", "T", "elementwise", "a + b; integers wrap, bools are or-ed.", bounds="add",
     flags="commutative associative", identity="zero")
_row("SUB", "T:Number T", "", "T", "elementwise", "a - b; integers wrap.", bounds="sub")
_row("MUL", "T:Any T", "", "T", "elementwise", "a * b; integers wrap, bools are and-ed.", bounds="mul",
     flags="commutative associative", identity="one")
_row("DIV", "T:Float T", "", "T", "elementwise", "a / b, IEEE.")
_row("FLOORDIV", "T:Int T", "", "T", "elementwise", "Quotient rounded down; 0 when b is 0; wraps.", bounds="floordiv")
_row("FLOORMOD", "T:Int T", "", "T", "elementwise", "a - a // b * b (sign of b); 0 when b is 0.", bounds="floormod")
_row("TRUNCDIV", "T:Int T", "", "T", "elementwise", "Quotient rounded towards zero (C); 0 when b is 0; wraps.",
     bounds="truncdiv")
_row("TRUNCMOD", "T:Int T", "", "T", "elementwise", "Remainder with the sign of a (C); 0 when b is 0.",
     bounds="truncmod")
_row("POW", "T:Float T", "", "T", "elementwise", "a to the b, as C pow.")
_row("MAX", "T:Any T", "", "T", "elementwise", "The greater; NaN if either is; sign of a zero result unspecified.",
     bounds="max", flags="commutative associative idempotent", identity="min")
_row("MIN", "T:Any T", "", "T", "elementwise", "The lesser; NaN if either is; sign of a zero result unspecified.",
     bounds="min", flags="commutative associative idempotent", identity="max")
_row("AND", "T:Integral T", "", "T", "elementwise", "Bitwise and.", bounds="and",
     flags="commutative associative idempotent", identity="ones")
_row("OR", "T:Integral T", "", "T", "elementwise", "Bitwise or.", bounds="or",
     flags="commutative associative idempotent", identity="zero")
_row("XOR", "T:Integral T", "", "T", "elementwise", "Bitwise exclusive or.", bounds="xor",
     flags="commutative associative", identity="zero")
_row("SHL", "T:Int T", "", "T", "elementwise", "a << b; 0 for b outside 0..width-1.", bounds="shl")
_row("SHR", "T:Int T", "", "T", "elementwise",
     "a >> b, keeping the sign; 0 (or -1 for negative a) for b outside 0..width-1.", bounds="shr")
_row("LT", "T:Any T", "", "bool", "elementwise", "a < b; false with NaN.", bounds="lt")
_row("LE", "T:Any T", "", "bool", "elementwise", "a <= b; false with NaN.", bounds="le")
_row("EQ", "T:Any T", "", "bool", "elementwise", "a == b; false with NaN, true for 0.0 and -0.0.", bounds="eq",
     flags="commutative")
_row("NE", "T:Any T", "", "bool", "elementwise", "a != b; true with NaN.", bounds="ne", flags="commutative")

# --- elementwise: ternary ---------------------------------------------------------------------------------
_row("WHERE", "Bool T:Any T", "", "T", "elementwise", "b where the condition holds, else c.", bounds="where")
_row("FMA", "T:Float T T", "", "T", "elementwise", "a * b + c with one rounding.")

# --- movement ---------------------------------------------------------------------------------------------
_row("RESHAPE", "T:Any", "shape", "T", "attribute", "The same elements in row-major order, another shape.",
     levels=TENSOR, flags="movement")
_row("PERMUTE", "T:Any", "axes", "T", "permute", "Axis k of the result is axis axes[k] of x.", levels=TENSOR,
     flags="movement")
_row("EXPAND", "T:Any", "shape", "T", "attribute", "Repeats axes of size 1; the rank stays.", levels=TENSOR,
     flags="movement")
_row("PAD", "T:Any", "padding", "T", "pad", "Adds zeros: padding is ((before, after), ...) for every axis.",
     levels=TENSOR, flags="movement")
_row("SHRINK", "T:Any", "limits", "T", "shrink", "The box ((start, stop), ...) of every axis.", levels=TENSOR,
     flags="movement")
_row("FLIP", "T:Any", "axes", "T", "same", "Reverses the named axes.", levels=TENSOR, flags="movement")

# --- reductions, indexing, memory -------------------------------------------------------------------------
_row("REDUCE", "T:Any *Index", "op axes", "T", "reduce",
     "Combines with a monoid over axes (kept with size 1), in unspecified order; at kernel level axes is () and "
     "the ranges to reduce over follow the value.", levels=("tensor", "kernel"), bounds="reduce")
_row("SCAN", "T:Any", "op axis", "T", "same", "Inclusive running combination along an axis, in order.", levels=TENSOR)
_row("GATHER", "T:Any Int", "axis", "T", "gather",
     "x[..., i, ...]: the axis is replaced by the shape of i; 0 where i is outside the axis.", levels=TENSOR)
_row("SCATTER", "T:Any Int T", "op axis", "T", "same",
     "base with updates combined in at i along an axis, in order of i (op None replaces); outside is dropped.",
     levels=TENSOR)
_row("CONTIGUOUS", "T:Any", "", "T", "same", "x, stored; x itself where it is a buffer.", levels=TENSOR)
_row("DETACH", "T:Any", "", "T", "same", "x; gradients stop here.", levels=TENSOR)
_row("COPY", "T:Any", "device", "T", "same", "x, stored on another device.", levels=TENSOR)
_row("ASSIGN", "T:Any T T", "", "T", "same",
     "The next version of the buffer `base`: its elements seen through `view` (movement ops on base) become `value`.",
     levels=TENSOR)
_row("CALL", "Any *Any", "", "operand", "same", "body with its PARAM nodes standing for the arguments.", levels=TENSOR)
_row("CUSTOM", "*Any", "dtype name shape", "attribute", "attribute",
     "An op that a plugin owns; `name` is `plugin.op`.")
_row("SINK", "*Any", "info", "void", "scalar", "Roots of a graph: tensors, or the stores of one kernel.")

# --- kernel level -----------------------------------------------------------------------------------------
_row("RANGE", "Index", "id kind", "index", "scalar",
     "0..bound-1; `kind` says what it is bound to: loop, ordered, reduce, global, local, vector, unroll, "
     "group (summed by DOT). "
     "Lower ids are outer loops.", levels=LOWERED, bounds="range")
_row("INDEX", "T:Any Bool *Index", "", "T", "scalar",
     "One element of a tensor value, guarded: where the guard is false no memory is read, and the value is "
     "unspecified.", levels=KERNEL)
_row("LOAD", "T:Any Index Bool", "lanes", "T", "lanes",
     "Element `index` of a buffer (row-major), 0 where the guard is false; lanes > 1 loads neighbours; an index "
     "with lanes gathers.", levels=LOWERED, bounds="load")
_row("STORE", "T:Any Index T Bool", "", "void", "scalar",
     "buffer, index, value, guard: stores value where the guard holds; a value with lanes and a scalar index "
     "stores neighbours.", levels=LOWERED)
_row("AFTER", "T:Any *Any", "", "T", "same", "x, once the other operands have happened.", levels=LOWERED)
_row("BARRIER", "*Any", "", "void", "scalar", "All work-items of a work-group wait here.", levels=LOWERED)
_row("END", "Any *Index", "", "void", "scalar",
     "Kernel level: closes the loops over the RANGEs that follow a STORE. Program level: END(range) ends its loop.",
     levels=LOWERED)

# --- program level ----------------------------------------------------------------------------------------
_row("LINEAR", "*Any", "info", "void", "scalar", "A program: its operands in order of execution.", levels=PROGRAM)
_row("IF", "Bool", "", "void", "scalar", "Opens a block that runs when a scalar condition holds.", levels=PROGRAM)
_row("ENDIF", "Void", "", "void", "scalar", "Closes an IF.", levels=PROGRAM)
_row("ACCUMULATOR", "T:Any", "id", "T", "same",
     "A mutable register with its initial value; an operand reads what it holds at that point of the list.",
     levels=PROGRAM)
_row("UPDATE", "T:Any T", "", "void", "scalar", "Sets an accumulator.", levels=PROGRAM)
_row("IOTA", "", "dtype lanes", "attribute", "iota", "0, 1, ... lanes-1.", levels=PROGRAM, bounds="iota")
_row("SPLAT", "T:Any", "lanes", "T", "splat", "A scalar in every lane.", levels=PROGRAM, bounds="same")
_row("SHUFFLE", "T:Any T", "indices", "T", "shuffle",
     "Lane k of the result is lane indices[k] of a and b written one after the other.", levels=PROGRAM)
_row("DOT", "T:Number S:Number R:Number", "", "T", "same",
     "acc + sums of products: lane i adds a[k] * b[k] of the i-th group of neighbours k; sums of floats are rounded "
     "in unspecified order. At kernel level groups are single products, reduced over a range of kind group.",
     levels=LOWERED)
_row("LANE_REDUCE", "T:Any", "op", "T", "scalar", "Combines the lanes of a value into a scalar.", levels=PROGRAM)

# fmt: on
ELEMENTWISE = frozenset(op for op in TABLE.values() if op.elementwise)
MOVEMENT = frozenset(op for op in TABLE.values() if op.movement)
MONOIDS = frozenset(op for op in TABLE.values() if op.identity is not None)
