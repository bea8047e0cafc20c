"""Building nodes: ``OP[attributes](operands)`` on the right of a rule, with inferred dtype and constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinycore.errors import did_you_mean
from tinycore.ir import dtypes
from tinycore.ir.ops import TABLE, Op
from tinycore.rules import syntax as s
from tinycore.rules.matcher import Code, operand_specs

if TYPE_CHECKING:
    from tinycore.rules.express import Expressions

SEQUENCES = ("shape", "axes", "padding", "limits", "info")


def build(
    ex: Expressions,
    e: s.Node,
    name: str,
    attributes: tuple[s.Expression, ...] | None,
    operands: tuple[s.Expression, ...],
    dtype: str | None,
    shape: str | None,
) -> Code:
    """The code that builds a node of the op `name`; `dtype` and `shape` are what its place expects."""
    op = TABLE.get(name)
    if op is None:
        raise ex.error(e, f"there is no op {name}", did_you_mean(name, TABLE))
    splats = any(isinstance(operand, s.Splat) for operand in operands)
    least = len(op.operands) - op.variadic
    if not splats and (len(operands) < least or (not op.variadic and len(operands) > least)):
        wanted = f"at least {least}" if op.variadic else str(least)
        raise ex.error(e, f"{name} takes {wanted} operands, not {len(operands)}")
    argument, own_dtype = _attributes(ex, e, op, attributes)
    if name == "CONST":
        given = attributes or ()
        return Code(
            f"const({own_dtype}, {ex.value(given[1]).text}, {ex.value(given[2]).text})", "node", own_dtype
        )
    if op.elementwise and not splats:
        return _elementwise(ex, op, operands, argument, own_dtype, dtype, shape)
    return _other(ex, e, op, operands, argument, own_dtype, dtype)


def _attributes(
    ex: Expressions, e: s.Node, op: Op, given: tuple[s.Expression, ...] | None
) -> tuple[str, str | None]:
    """The text of `arg`, and of the dtype where that is an attribute."""
    if given is None and op.attributes == ("info",):
        return "None", None
    if len(given or ()) != len(op.attributes):
        shown = f"[{', '.join(op.attributes)}]" if op.attributes else "no attributes"
        raise ex.error(e, f"{op.name} needs {shown}")
    parts, dtype = [], None
    for name, value in zip(op.attributes, given or (), strict=True):
        code = ex.value(value)
        if name == "dtype":
            if code.type not in ("dtype", "any"):
                raise ex.error(value, "a dtype belongs here")
            dtype = code.text
            continue
        if (code.type in ("node", "const") and name in SEQUENCES) or code.type == "dtype":
            raise ex.error(value, f"the attribute {name} cannot be a {code.type}")
        simple = code.type in ("num", "bool", "op", "str", "const") or code.frozen
        parts.append(code.text if simple else f"frozen({code.text})")
    argument = "None" if not parts else parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
    return argument, dtype


def _elementwise(
    ex: Expressions,
    op: Op,
    operands: tuple[s.Expression, ...],
    argument: str,
    own_dtype: str | None,
    dtype: str | None,
    shape: str | None,
) -> Code:
    specs = [spec.partition(":")[0] for spec in operand_specs(op, len(operands))]
    result_is_t = op.dtype == "T"
    t_dtype: str | None = dtype if result_is_t else None
    found_dtype: str | None = None
    found_shape: str | None = None
    is_node = [ex.is_node(operand) for operand in operands]
    is_const = [ex.type_of(operand) == "const" for operand in operands]
    codes: list[Code | None] = [None] * len(operands)
    # Nodes first: what they are decides what the numbers beside them become. Constants know their dtype too.
    for wave in (is_node, is_const):
        for k, operand in enumerate(operands):
            if not wave[k] or codes[k] is not None:
                continue
            expected = found_dtype or (t_dtype if is_node[k] else None)
            code = ex.node(
                operand, expected if specs[k] == "T" else None, found_shape if not is_node[k] else shape
            )
            codes[k] = code
            if specs[k] == "T":
                found_dtype = found_dtype or code.dtype
            found_shape = found_shape or code.shape
    unknown = any(code is not None and code.dtype is None and specs[k] == "T" for k, code in enumerate(codes))
    if found_dtype is None and unknown:
        return _dynamic(ex, op, operands, codes, argument, own_dtype)
    found_dtype = found_dtype or t_dtype
    found_shape = found_shape or (shape if not any(is_node) else None)
    if found_shape is None and any(code is None for code in codes):
        return _dynamic(ex, op, operands, codes, argument, own_dtype)
    for k, operand in enumerate(operands):
        if codes[k] is None:
            expected = (
                found_dtype if specs[k] == "T" else ex.pool.dtype("bool") if specs[k] == "Bool" else None
            )
            codes[k] = ex.node(operand, expected, found_shape)
    text = ", ".join(code.text for code in codes if code is not None) + ("," if len(codes) == 1 else "")
    result = found_dtype if result_is_t else own_dtype if op.dtype == "attribute" else ex.pool.dtype(op.dtype)
    foldable = not any(is_node) and all(
        ex.type_of(operand) in ("const", "num", "bool") for operand in operands
    )
    head = f"fold({ex.pool.op(op.name)}" if foldable else f"UOp({ex.pool.op(op.name)}"
    if result is None:
        return Code(f"build({ex.pool.op(op.name)}, ({text}), None)", "node", None, found_shape)
    return Code(f"{head}, {result}, ({text}))", "node", result, found_shape)


def _dynamic(
    ex: Expressions,
    op: Op,
    operands: tuple[s.Expression, ...],
    codes: list[Code | None],
    argument: str,
    own_dtype: str | None,
) -> Code:
    """An elementwise node of operands about which too little is known until the rule runs."""
    texts = []
    for operand, code in zip(operands, codes, strict=True):
        if code is None:
            value = ex.value(operand)
            texts.append(value.text)
        else:
            texts.append(code.text)
    if own_dtype is not None:
        return Code(f"UOp({ex.pool.op(op.name)}, {own_dtype}, ({texts[0]},))", "node", own_dtype)
    result = ex.pool.dtype(op.dtype) if op.dtype in ("bool",) else None
    return Code(f"alu({ex.pool.op(op.name)}, {', '.join(texts)})", "node", result)


def _other(
    ex: Expressions,
    e: s.Node,
    op: Op,
    operands: tuple[s.Expression, ...],
    argument: str,
    own_dtype: str | None,
    dtype: str | None,
) -> Code:
    texts: list[str] = []
    t_dtype: str | None = None
    first: Code | None = None
    specs = operand_specs(op, max(len(operands), len(op.operands)))
    splatted = False
    for k, operand in enumerate(operands):
        variable, _, _ = (specs[-1].lstrip("*") if splatted else specs[k].lstrip("*")).partition(":")
        if isinstance(operand, s.Splat):
            splatted = True
            expected = ex.pool.dtype("index") if variable == "Index" or op.operands[-1] == "*Index" else None
            texts.append("*" + ex.node_list(operand.value, expected))
            continue
        expected = {"Index": ex.pool.dtype("index"), "Bool": ex.pool.dtype("bool")}.get(variable)
        if variable == "T":
            expected = t_dtype or (dtype if op.dtype == "T" else None)
        number = ex.type_of(operand) in ("num", "bool")
        if number and op.movement:
            raise ex.error(
                operand,
                f"the shape of a number below {op.name} is not known",
                "write const(dtype, value, shape)",
            )
        code = ex.node(operand, expected, "()" if number else None)
        first = first or code
        if variable == "T" and t_dtype is None:
            t_dtype = code.dtype
        texts.append(code.text)
    src = "(" + ", ".join(texts) + ("," if len(texts) == 1 else "") + ")"
    result: str | None
    if op.dtype == "T":
        result = t_dtype
    elif op.dtype == "attribute":
        result = own_dtype
    elif op.dtype == "operand":
        result = first.dtype if first is not None else None
    else:
        result = ex.pool.dtype(op.dtype)
    shape = (
        "()" if op.shape == "scalar" else first.shape if op.shape == "same" and first is not None else None
    )
    if result is None:
        return Code(f"build({ex.pool.op(op.name)}, {src}, {argument})", "node", None, shape)
    tail = "" if argument == "None" else f", {argument}"
    return Code(f"UOp({ex.pool.op(op.name)}, {result}, {src}{tail})", "node", result, shape)


__all__ = ["build", "dtypes"]
