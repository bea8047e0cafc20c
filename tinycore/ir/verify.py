"""The verifier: is a graph well-formed at its level? What a pass may rely on is what this checks.

>>> from tinycore.ir import UOp, dtypes, ops
>>> x = UOp.const(dtypes.float32, 1.0, (2,))
>>> verify(x + x, "tensor")
>>> verify(UOp(ops.ADD, dtypes.float32, (x, UOp.const(dtypes.int32, 1, (2,)))), "tensor")
Traceback (most recent call last):
    ...
tinycore.errors.VerifyError: ADD: operand 1 is int32, but T is float32 here
    %0 = CONST[1.0, (2,)] : float32 (2,)
    %1 = CONST[1, (2,)] : int32 (2,)
  > %2 = ADD(%0, %1) : float32 (2,)
  hint: the op table says ADD(T:Any T) -> T
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinycore.errors import TinycoreError, VerifyError
from tinycore.ir import dims, dtypes
from tinycore.ir.dtypes import CLASSES, DType
from tinycore.ir.ops import MONOIDS, Level, Op, ops
from tinycore.ir.parse import attribute_names
from tinycore.ir.text import line, nodes_in, order
from tinycore.ir.uop import Dim, Shape, UOp, toposort

CONTEXT = 4
"""How many operands of the offending node, and how many of theirs, an error shows."""

LOOP_KINDS = ("loop", "ordered", "reduce")
RANGE_KINDS = {
    "kernel": (*LOOP_KINDS, "global", "local", "vector", "unroll", "group"),
    "program": (*LOOP_KINDS, "global", "local"),
}


class Invalid(Exception):
    """What is wrong with a node; becomes a VerifyError that shows the node in context."""


def verify(root: UOp, level: Level) -> None:
    """Raise VerifyError unless every node below the root obeys the op table and the rules of the level.

    Checked at every level: the op may stand there, number and dtypes of operands (dtype variables unify),
    attributes, shapes. At kernel level also: stores stand in a SINK, are guarded by a bool, ranges are
    unique, a REDUCE names its ranges. At program level: the order of the list, see `verify_program`.
    """
    nodes = toposort((root,))
    own = set(nodes)
    dimensions = [node for node in order(root) if node not in own]
    for node in [*dimensions, *nodes]:
        # Dimensions keep their `index` dtype at every level: they describe memory and are not computed.
        check_one(node, lambda node: _check_node(node, level if node in own else "tensor"))
    if level == "kernel":
        _check_kernel(root)
    elif level == "program" and root.op is ops.LINEAR:
        from tinycore.ir.verify_program import check_list

        check_list(root)


def check_one(node: UOp, check: Callable[[UOp], None]) -> None:
    """Apply a check; what it says becomes a VerifyError with the node in context."""
    try:
        check(node)
    except Invalid as problem:
        raise _explained(node, str(problem)) from None
    except TinycoreError as problem:
        raise _explained(node, problem.what) from problem
    except (TypeError, ValueError, IndexError, AttributeError, KeyError) as problem:
        raise _explained(node, f"its attributes make no sense: {node.arg!r}") from problem


def in_context(node: UOp) -> str:
    """The node in text with the operands below it, marked; what errors show."""
    near = {node: None, **dict.fromkeys(node.src[:CONTEXT])}
    for operand in node.src[:CONTEXT]:
        near.update(dict.fromkeys(operand.src[:CONTEXT]))
    shown = [other for other in toposort((node,)) if other in near]
    names = {other: f"%{number}" for number, other in enumerate(shown)}
    for other in list(shown):
        for hidden in (*nodes_in(other.arg), *other.src):
            names.setdefault(hidden, f"%{hidden.op.name.lower()}")
    return "\n".join(
        [f"{'> ' if other is node else '  '}{names[other]} = {line(other, names)}" for other in shown]
    )


def signature(op: Op) -> str:
    """The row of an op as the table says it.

    >>> signature(ops.WHERE)
    'WHERE(Bool T:Any T) -> T'
    """
    attributes = f"[{', '.join(op.attributes)}]" if op.attributes else ""
    return f"{op.name}{attributes}({' '.join(op.operands)}) -> {op.dtype}"


def _explained(node: UOp, what: str) -> VerifyError:
    return VerifyError(
        f"{node.op.name}: {what}", where=in_context(node), hint=f"the op table says {signature(node.op)}"
    )


# --- one node ---------------------------------------------------------------------------------------------


def _check_node(node: UOp, level: Level) -> None:
    if level not in node.op.levels:
        raise Invalid(f"cannot stand at {level} level, only at {' and '.join(node.op.levels)} level")
    if not isinstance(node.src, tuple):
        raise Invalid("operands are a tuple")
    _check_dtypes(node, level)
    check = _ATTRIBUTES.get(node.op)
    if check is not None:
        check(node)
    elif not attribute_names(node.op) and node.arg is not None:
        raise Invalid(f"has no attributes, but its arg is {node.arg!r}")
    if node.op.elementwise:
        _same_shapes(node)
    rule = _SHAPES.get(node.op)
    if rule is not None:
        rule(node)


def _check_dtypes(node: UOp, level: Level) -> None:
    op, bound = node.op, dict[str, DType]()
    count = len(op.operands)
    fixed = count - op.variadic
    if len(node.src) < fixed or (len(node.src) > count and not op.variadic):
        raise Invalid(f"has {len(node.src)} operands instead of {fixed}{' or more' if op.variadic else ''}")
    for position, operand in enumerate(node.src):
        _check_operand(op.operands[min(position, count - 1)], position, operand, bound, level)
    if op.dtype in bound:
        wanted: DType | None = bound[op.dtype]
    elif op.dtype == "operand":
        wanted = node.src[0].dtype
    else:
        wanted = None if op.dtype == "attribute" else dtypes.by_name(op.dtype)
    if level == "program" and op is not ops.LINEAR and node.dtype is dtypes.index:
        raise Invalid("index has no machine width: address arithmetic is int32 or int64 at program level")
    if wanted is not None and node.dtype is not wanted and not _machine_index(wanted, node.dtype, level):
        raise Invalid(f"its dtype is {node.dtype}, but follows to be {wanted}")
    if op.dtype == "attribute" and node.dtype is dtypes.void:
        raise Invalid("void is no dtype of a value")


def _machine_index(wanted: DType, dtype: DType, level: Level) -> bool:
    """At program level what the table calls index has become a machine integer."""
    return level == "program" and wanted is dtypes.index and dtype in (dtypes.int32, dtypes.int64)


def _check_operand(pattern: str, position: int, operand: UOp, bound: dict[str, DType], level: Level) -> None:
    if not isinstance(operand, UOp):
        raise Invalid(f"operand {position} is {operand!r}, which is no node")
    pattern = pattern.lstrip("*")
    if pattern in bound:
        if operand.dtype is not bound[pattern]:
            raise Invalid(f"operand {position} is {operand.dtype}, but {pattern} is {bound[pattern]} here")
        return
    variable, _, name = pattern.rpartition(":")
    if name == "Any" and not variable:
        return
    allowed = (dtypes.void,) if name == "Void" else CLASSES[name]
    if operand.dtype not in allowed and not (
        name == "Index" and _machine_index(dtypes.index, operand.dtype, level)
    ):
        raise Invalid(f"operand {position} is {operand.dtype}, which is not in the class {name}")
    if variable:
        bound[variable] = operand.dtype


def _same_shapes(node: UOp) -> None:
    shape = node.src[0].shape
    for position, operand in enumerate(node.src):
        if operand.shape != shape:
            raise Invalid(f"operand {position} has shape {operand.shape}, operand 0 has {shape}")


# --- attributes -------------------------------------------------------------------------------------------


def _is_dim(value: Any) -> bool:
    if isinstance(value, UOp):
        return value.dtype is dtypes.index
    return type(value) is int and value >= 0


def _shape(shape: Any, what: str = "the shape") -> None:
    if not isinstance(shape, tuple) or not all(_is_dim(dim) for dim in shape):
        raise Invalid(f"{what} {shape!r} is not a tuple of dimensions")


def _fields(node: UOp, *kinds: type | tuple[type, ...]) -> tuple[Any, ...]:
    """The arg as a tuple whose parts have these types."""
    names = attribute_names(node.op)
    if not isinstance(node.arg, tuple) or len(node.arg) != len(kinds):
        raise Invalid(f"its arg {node.arg!r} is not ({', '.join(names)})")
    for name, part, kind in zip(names, node.arg, kinds, strict=True):
        if not isinstance(part, kind) or (isinstance(part, bool) and kind is int):
            raise Invalid(f"{name} is {part!r}")
    return node.arg


def _const(node: UOp) -> None:
    bits, shape = _fields(node, int, tuple)
    _shape(shape)
    dtype = node.dtype
    if dtype.is_float:
        valid = 0 <= bits < 1 << dtype.bits
    else:
        valid = dtype.kind != "void" and int(dtype.min) <= bits <= int(dtype.max)
    if not valid:
        raise Invalid(f"{bits} is not a value of {dtype}")


def _variable(node: UOp) -> None:
    name, low, high, multiple = _fields(node, str, int, int, int)
    if not (name and 0 <= low <= high and multiple >= 1):
        raise Invalid("needs a name, 0 <= min <= max and multiple_of >= 1")


def _storage(*kinds: type | tuple[type, ...]) -> Callable[[UOp], None]:
    def check(node: UOp) -> None:
        fields = dict(zip(attribute_names(node.op), _fields(node, *kinds), strict=True))
        _shape(fields["shape"])
        if "scope" in fields and fields["scope"] not in ("local", "private"):
            raise Invalid(f"the scope is local or private, not {fields['scope']!r}")
        if node.dtype not in dtypes.DATA:
            raise Invalid(f"{node.dtype} cannot be stored")

    return check


def _reduce(node: UOp) -> None:
    op, axes = _fields(node, Op, tuple)
    _monoid(op)
    _axes(axes, len(node.src[0].shape))
    if axes and len(node.src) > 1:
        raise Invalid("reduces over axes or over ranges, not both")


def _monoid(op: Any) -> None:
    if op not in MONOIDS:
        raise Invalid(f"{op!r} does not combine values: it has no identity")


def _axes(axes: Any, rank: int) -> None:
    if not isinstance(axes, tuple) or list(axes) != sorted({axis for axis in axes if isinstance(axis, int)}):
        raise Invalid(f"the axes {axes!r} are not a sorted tuple without repeats")
    if any(not 0 <= axis < rank for axis in axes):
        raise Invalid(f"the axes {axes!r} do not exist in rank {rank}")


def _axis(axis: Any, rank: int) -> None:
    if type(axis) is not int or not 0 <= axis < rank:
        raise Invalid(f"there is no axis {axis!r} in rank {rank}")


def _scan(node: UOp) -> None:
    op, axis = _fields(node, Op, int)
    _monoid(op)
    _axis(axis, len(node.src[0].shape))


def _scatter(node: UOp) -> None:
    op, axis = _fields(node, (Op, type(None)), int)
    if op is not None:
        _monoid(op)
    _axis(axis, len(node.src[0].shape))
    base, index, updates = (operand.shape for operand in node.src)
    wanted = base[:axis] + index + base[axis + 1 :]
    if updates != wanted:
        raise Invalid(f"the updates have shape {updates}, but base and index ask for {wanted}")


def _range(node: UOp) -> None:
    number, _ = _fields(node, int, str)
    if number < 0:
        raise Invalid("the id of a range is not negative")


def _positive(node: UOp) -> None:
    if type(node.arg) is not int or node.arg < 1:
        raise Invalid(f"lanes are a positive int, not {node.arg!r}")


def _shuffle(node: UOp) -> None:
    if not isinstance(node.arg, tuple) or not all(type(place) is int for place in node.arg):
        raise Invalid(f"indices are a tuple of ints, not {node.arg!r}")


def _load(node: UOp) -> None:
    if node.arg is not None:
        _positive(node)


def _custom(node: UOp) -> None:
    name, shape = _fields(node, str, tuple)
    if "." not in name:
        raise Invalid(f"the name of a custom op is plugin.op, not {name!r}")
    _shape(shape)


def _bitcast(node: UOp) -> None:
    source = node.src[0].dtype
    if source.itemsize != node.dtype.itemsize or not source.itemsize:
        raise Invalid(f"{source} and {node.dtype} differ in size")


def _text(node: UOp) -> None:
    if not isinstance(node.arg, str):
        raise Invalid(f"its attribute {node.arg!r} is not a name")


_ATTRIBUTES: dict[Op, Callable[[UOp], None]] = {
    ops.CONST: _const,
    ops.VARIABLE: _variable,
    ops.BUFFER: _storage(int, tuple, str),
    ops.PARAM: _storage(int, tuple),
    ops.SCRATCH: _storage(str, int, tuple),
    ops.BITCAST: _bitcast,
    ops.RESHAPE: lambda node: _shape(node.arg),
    ops.EXPAND: lambda node: _shape(node.arg),
    ops.PERMUTE: lambda node: _axes(tuple(sorted(node.arg)), len(node.src[0].shape)),
    ops.FLIP: lambda node: _axes(node.arg, len(node.src[0].shape)),
    ops.REDUCE: _reduce,
    ops.SCAN: _scan,
    ops.GATHER: lambda node: _axis(node.arg, len(node.src[0].shape)),
    ops.SCATTER: _scatter,
    ops.COPY: _text,
    ops.CUSTOM: _custom,
    ops.RANGE: _range,
    ops.LOAD: _load,
    ops.IOTA: _positive,
    ops.SPLAT: _positive,
    ops.SHUFFLE: _shuffle,
    ops.LANE_REDUCE: lambda node: _monoid(node.arg),
    ops.PAD: lambda node: _pairs(node, "(before, after)"),
    ops.SHRINK: lambda node: _pairs(node, "(start, stop)"),
    ops.SINK: lambda node: None,
    ops.LINEAR: lambda node: None,
    ops.ACCUMULATOR: lambda node: None,
}


# --- shapes -----------------------------------------------------------------------------------------------


def _pairs(node: UOp, what: str) -> None:
    pairs, rank = node.arg, len(node.src[0].shape)
    if not isinstance(pairs, tuple) or len(pairs) != rank:
        raise Invalid(f"needs {what} for each of {rank} axes, not {pairs!r}")
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(_is_dim(dim) for dim in pair):
            raise Invalid(f"{pair!r} is not {what}")


def _at_most(small: Dim, large: Dim) -> bool:
    """Whether small <= large may hold; symbolic dimensions are given the benefit of the doubt."""
    return dims.upper(dims.subtract(large, small)) >= 0


def _reshape(node: UOp) -> None:
    before, after = dims.product(node.src[0].shape), dims.product(node.arg)
    if before != after:
        raise Invalid(f"{node.src[0].shape} has {before} elements, {node.arg} has {after}")


def _expand(node: UOp) -> None:
    before: Shape = node.src[0].shape
    if len(before) != len(node.arg):
        raise Invalid(f"the rank stays: {before} cannot become {node.arg}")
    for axis, (old, new) in enumerate(zip(before, node.arg, strict=True)):
        if old not in (1, new):
            raise Invalid(f"axis {axis} of {before} is not 1 and cannot become {new}")


def _shrink(node: UOp) -> None:
    for axis, ((start, stop), size) in enumerate(zip(node.arg, node.src[0].shape, strict=True)):
        if not (_at_most(start, stop) and _at_most(stop, size)):
            raise Invalid(f"the box {start}..{stop} is not inside axis {axis} of size {size}")


def _permute(node: UOp) -> None:
    if len(node.arg) != len(node.src[0].shape):
        raise Invalid(f"{node.arg} does not name every axis of {node.src[0].shape}")


def _assign(node: UOp) -> None:
    base, view, value = node.src
    if view.shape != value.shape:
        raise Invalid(f"the view has shape {view.shape}, the value {value.shape}")
    while view is not base:
        if view.op not in (ops.RESHAPE, ops.PERMUTE, ops.SHRINK, ops.FLIP):
            raise Invalid("the view is not made of SHRINK, PERMUTE, RESHAPE and FLIP over the base")
        view = view.src[0]
    base = base.under(ops.ASSIGN)
    if base.op not in (ops.BUFFER, ops.PARAM):
        raise Invalid(f"only a buffer can be assigned to, not {base.op.name}")


def _call(node: UOp) -> None:
    for leaf in toposort((node.src[0],)):
        if leaf.op is not ops.PARAM:
            continue
        slot = leaf.arg[0]
        if not 0 <= slot < len(node.src) - 1:
            raise Invalid(f"the body has a parameter {slot}, but {len(node.src) - 1} arguments are given")
        given = node.src[1 + slot]
        if (given.dtype, given.shape) != (leaf.dtype, leaf.shape):
            raise Invalid(
                f"argument {slot} is {given.dtype} {given.shape}, its parameter is {leaf.dtype} {leaf.shape}"
            )


_SHAPES: dict[Op, Callable[[UOp], None]] = {
    ops.RESHAPE: _reshape,
    ops.EXPAND: _expand,
    ops.SHRINK: _shrink,
    ops.PERMUTE: _permute,
    ops.ASSIGN: _assign,
    ops.CALL: _call,
}


# --- kernels ----------------------------------------------------------------------------------------------


_MEMORY = (ops.PARAM, ops.SCRATCH, ops.BUFFER)


def _check_kernel(root: UOp) -> None:
    if root.op is not ops.SINK:
        raise VerifyError("a kernel is a SINK of stores", where=in_context(root))
    known: dict[int, UOp] = {}
    for node in toposort((root,)):
        check_one(node, lambda node: _check_kernel_node(node, root, known))


def _check_kernel_node(node: UOp, root: UOp, known: dict[int, UOp]) -> None:
    if node is root:
        for statement in node.src:
            if statement.op is not ops.STORE:
                raise Invalid(f"its operands are stores, not {statement.op.name}")
    elif node.op in (ops.LOAD, ops.STORE):
        memory = node.src[0].under(ops.AFTER)
        if memory.op not in _MEMORY:
            raise Invalid(f"its buffer is {memory.op.name}, which is no memory")
        _check_scalars(node)
    elif node.op is ops.RANGE:
        if node.arg[1] not in RANGE_KINDS["kernel"]:
            raise Invalid(f"there is no kind of range {node.arg[1]!r}")
        if known.setdefault(node.arg[0], node) is not node:
            raise Invalid(f"two ranges have the id {node.arg[0]}")
    elif node.op is ops.REDUCE:
        if node.arg[1]:
            raise Invalid("names ranges, not axes, at kernel level")
        for operand in node.src[1:]:
            if operand.op is not ops.RANGE:
                raise Invalid(f"reduces over {operand.op.name}, which is no range")
    elif node.op is ops.END and (
        node.src[0].op is not ops.STORE or any(operand.op is not ops.RANGE for operand in node.src[1:])
    ):
        raise Invalid("closes ranges around a store")


def _check_scalars(node: UOp) -> None:
    for position, operand in enumerate(node.src[1:], 1):
        if operand.shape != ():
            raise Invalid(f"operand {position} has shape {operand.shape}: values are scalars at kernel level")
    if node.arg not in (None, 1):
        raise Invalid("lanes belong to the program level")
