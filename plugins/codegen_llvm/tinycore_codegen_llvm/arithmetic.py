"""Elementwise ops: from a node and the names of its operands to instructions.

Integers wrap (no nsw, no nuw), shifts and divisions are defined everywhere as the op table says; the checks
are left out where bounds prove them needless.
"""

from __future__ import annotations

from collections.abc import Callable

from tinycore.errors import CompileError
from tinycore.ir import Op, UOp, dtypes, ops
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.casts import cast, make_odd, narrow, widen
from tinycore_codegen_llvm.flavour import Flavour
from tinycore_codegen_llvm.types import Family, Register

_INSTRUCTIONS: dict[Op, dict[Family, str]] = {
    ops.ADD: {"float": "fadd", "int": "add", "uint": "add", "bool": "or"},
    ops.SUB: {"float": "fsub", "int": "sub", "uint": "sub"},
    ops.MUL: {"float": "fmul", "int": "mul", "uint": "mul", "bool": "and"},
    ops.DIV: {"float": "fdiv"},
    ops.AND: {"int": "and", "uint": "and", "bool": "and"},
    ops.OR: {"int": "or", "uint": "or", "bool": "or"},
    ops.XOR: {"int": "xor", "uint": "xor", "bool": "xor"},
    ops.MAX: {"bool": "or"},
    ops.MIN: {"bool": "and"},
    ops.LT: {"float": "fcmp olt", "int": "icmp slt", "uint": "icmp ult", "bool": "icmp ult"},
    ops.LE: {"float": "fcmp ole", "int": "icmp sle", "uint": "icmp ule", "bool": "icmp ule"},
    ops.EQ: {"float": "fcmp oeq", "int": "icmp eq", "uint": "icmp eq", "bool": "icmp eq"},
    ops.NE: {"float": "fcmp une", "int": "icmp ne", "uint": "icmp ne", "bool": "icmp ne"},
}
"""Ops that are one instruction."""

_INTRINSICS: dict[Op, dict[Family, tuple[str, str]]] = {
    # `maximum` hands NaN on; nsz (zeros have no order) makes it three instructions at most.
    ops.MAX: {"float": ("maximum", "nsz"), "int": ("smax", ""), "uint": ("umax", "")},
    ops.MIN: {"float": ("minimum", "nsz"), "int": ("smin", ""), "uint": ("umin", "")},
    ops.FMA: {"float": ("fma", "")},
    ops.SQRT: {"float": ("sqrt", "")},
    ops.FLOOR: {"float": ("floor", "")},
    ops.TRUNC: {"float": ("trunc", "")},
    ops.ROUND: {"float": ("roundeven", "")},
}
"""Ops that are one intrinsic whose operands and result have one type, with its flags."""

_REDUCTIONS: dict[Op, dict[Family, str]] = {
    ops.ADD: {"float": "fadd", "int": "add", "uint": "add", "bool": "or"},
    ops.MUL: {"float": "fmul", "int": "mul", "uint": "mul", "bool": "and"},
    ops.MAX: {"float": "fmaximum", "int": "smax", "uint": "umax", "bool": "or"},
    ops.MIN: {"float": "fminimum", "int": "smin", "uint": "umin", "bool": "and"},
    ops.AND: {"int": "and", "uint": "and", "bool": "and"},
    ops.OR: {"int": "or", "uint": "or", "bool": "or"},
    ops.XOR: {"int": "xor", "uint": "xor", "bool": "xor"},
}

_COMPARISONS = frozenset({ops.LT, ops.LE, ops.EQ, ops.NE})


def elementwise(body: Body, flavour: Flavour, node: UOp, operands: list[str]) -> str:
    """The value of an elementwise node. Raises CompileError when the op is not native for the dtype."""
    register = Register.of(node.src[-1])
    if node.op is ops.CAST:
        return cast(body, flavour, register, node.dtype, operands[0])
    if node.op is ops.BITCAST:
        return _bitcast(body, register, node, operands[0])
    if node.op is ops.WHERE:
        condition = Register.of(node.src[0])
        return body.emit(
            "where",
            f"select {condition.text} {operands[0]}, {register.text} {operands[1]}, "
            f"{register.text} {operands[2]}",
        )
    if register.dtype.is_float and register.dtype.itemsize == 1:
        raise CompileError(
            f"LLVM code cannot compute in {register.dtype}",
            where=repr(node),
            hint="8-bit floats are decomposed before rendering",
        )
    if register.dtype is dtypes.bfloat16 or (register.dtype is dtypes.float16 and not flavour.native_half):
        return _by_way_of_wider(body, flavour, node, register, operands)
    return _compute(body, node, register, operands)


def lane_reduce(body: Body, flavour: Flavour, node: UOp, value: str) -> str:
    """Combine the lanes of a value; floats in unspecified order."""
    register = Register.of(node.src[0])
    if register.lanes is None:
        return value
    if register.dtype in (dtypes.float16, dtypes.bfloat16):
        wide = register.retyped(dtypes.float32)
        total = _reduce(body, node, wide, widen(body, register, dtypes.float32, value))
        return narrow(body, flavour, Register(dtypes.float32), register.dtype, total)
    return _reduce(body, node, register, value)


def _reduce(body: Body, node: UOp, register: Register, value: str) -> str:
    stem = _REDUCTIONS.get(node.arg, {}).get(register.family)
    if stem is None:
        raise _unsupported(node, register)
    scalar = Register(register.dtype)
    arguments = [(register.text, value)]
    flags = "nsz" if stem in ("fmaximum", "fminimum") else ""
    if stem in ("fadd", "fmul"):
        # Without reassoc this would be one addition after the other.
        flags = "reassoc"
        arguments.insert(0, (scalar.text, scalar.number(-0.0 if stem == "fadd" else 1.0)))
    return body.call("lanes", f"llvm.vector.reduce.{stem}.{register.suffix}", scalar.text, arguments, flags)


def _compute(body: Body, node: UOp, register: Register, operands: list[str]) -> str:
    special = _SPECIAL.get(node.op)
    if special is not None:
        return special(body, node, register, operands)
    hint, family = node.op.name.lower(), register.family
    instruction = _INSTRUCTIONS.get(node.op, {}).get(family)
    if instruction is not None:
        return body.emit(hint, f"{instruction} {register.text} {', '.join(operands)}")
    found = _INTRINSICS.get(node.op, {}).get(family)
    if found is None:
        raise _unsupported(node, register)
    stem, flags = found
    return body.intrinsic(stem, register, *operands, flags=flags)


def _by_way_of_wider(body: Body, flavour: Flavour, node: UOp, register: Register, operands: list[str]) -> str:
    """float16 and bfloat16: compute wider, round once. float32 has enough bits for all ops but FMA."""
    wide = register.retyped(dtypes.float64 if node.op is ops.FMA else dtypes.float32)
    operands = [widen(body, register, wide.dtype, operand) for operand in operands]
    if node.op is ops.FMA:
        result = _odd_sum(
            body, wide, body.emit("product", f"fmul {wide.text} {operands[0]}, {operands[1]}"), operands[2]
        )
    else:
        result = _compute(body, node, wide, operands)
    return result if node.op in _COMPARISONS else narrow(body, flavour, wide, register.dtype, result)


def _odd_sum(body: Body, register: Register, a: str, b: str) -> str:
    """a + b, made odd where inexact, so that rounding it further is rounding once."""
    text = register.text
    total = body.emit("total", f"fadd {text} {a}, {b}")
    shift = body.emit("shift", f"fsub {text} {total}, {a}")
    back = body.emit("back", f"fsub {text} {total}, {shift}")
    error_a = body.emit("error", f"fsub {text} {a}, {back}")
    error_b = body.emit("error", f"fsub {text} {b}, {shift}")
    error = body.emit("error", f"fadd {text} {error_a}, {error_b}")
    lost = body.emit("lost", f"fcmp one {text} {error}, {register.zero}")  # false for NaN: the sum overflowed
    below = body.emit("below", f"fcmp olt {text} {error}, {register.zero}")
    negative = body.emit("negative", f"fcmp olt {text} {total}, {register.zero}")
    opposite = body.emit("opposite", f"xor {register.condition} {below}, {negative}")
    away = body.emit("away", f"and {register.condition} {opposite}, {lost}")
    return make_odd(body, register, total, away, lost)


def _negate(body: Body, node: UOp, register: Register, operands: list[str]) -> str:
    if register.family == "float":
        return body.emit("neg", f"fneg {register.text} {operands[0]}")
    return body.emit("neg", f"sub {register.text} {register.zero}, {operands[0]}")


def _bitcast(body: Body, register: Register, node: UOp, value: str) -> str:
    result = register.retyped(node.dtype)
    if register.element == result.element:
        return value
    if node.dtype.kind == "bool":
        return body.emit("bitcast", f"icmp ne {register.text} {value}, {register.zero}")
    if register.dtype.kind == "bool":
        return body.emit("bitcast", f"zext {register.text} {value} to {result.text}")
    return body.emit("bitcast", f"bitcast {register.text} {value} to {result.text}")


def _shift(body: Body, node: UOp, register: Register, operands: list[str]) -> str:
    value, count = operands
    arithmetic = node.op is ops.SHR and register.family == "int"
    word = "shl" if node.op is ops.SHL else "ashr" if arithmetic else "lshr"
    width = register.dtype.bits or 64
    if node.src[1].vmin >= 0 and node.src[1].vmax < width:
        return body.emit("shift", f"{word} {register.text} {value}, {count}")
    inside = body.emit("inside", f"icmp ult {register.text} {count}, {register.number(width)}")
    # A sign shifted by width-1 is what shifting by more means; everything else becomes 0.
    other = register.number(width - 1) if arithmetic else register.zero
    count = body.emit(
        "count", f"select {register.condition} {inside}, {register.text} {count}, {register.text} {other}"
    )
    shifted = body.emit("shift", f"{word} {register.text} {value}, {count}")
    if arithmetic:
        return shifted
    return body.emit(
        "shift",
        f"select {register.condition} {inside}, {register.text} {shifted}, {register.text} {register.zero}",
    )


def _divide(body: Body, node: UOp, register: Register, operands: list[str]) -> str:
    """TRUNCDIV and TRUNCMOD: 0 for a divisor of 0; the least value divided by -1 wraps."""
    dividend, divisor = operands
    a, b = node.src
    signed = register.family == "int"
    remainder = node.op is ops.TRUNCMOD
    zero_possible = b.vmin <= 0 <= b.vmax
    wraps = signed and b.vmin <= -1 <= b.vmax and a.vmin <= int(register.dtype.min)
    if signed and a.vmin >= 0 and b.vmin >= 0:
        signed = False  # unsigned division by a constant is shorter
    word = ("s" if signed else "u") + ("rem" if remainder else "div")
    if not zero_possible and not wraps:
        return body.emit(word, f"{word} {register.text} {dividend}, {divisor}")
    text, condition = register.text, register.condition
    one = register.number(1)
    safe = divisor
    zero = minus = ""
    if zero_possible:
        zero = body.emit("is_zero", f"icmp eq {text} {divisor}, {register.zero}")
        safe = body.emit("divisor", f"select {condition} {zero}, {text} {one}, {text} {safe}")
    if wraps:
        minus = body.emit("is_minus", f"icmp eq {text} {divisor}, {register.number(-1)}")
        safe = body.emit("divisor", f"select {condition} {minus}, {text} {one}, {text} {safe}")
    result = body.emit(word, f"{word} {text} {dividend}, {safe}")
    if remainder:
        return result  # the remainder of a division by 1 is the 0 that both cases want
    if wraps:
        negated = body.emit("neg", f"sub {text} {register.zero}, {dividend}")
        result = body.emit(word, f"select {condition} {minus}, {text} {negated}, {text} {result}")
    if zero_possible:
        result = body.emit(word, f"select {condition} {zero}, {text} {register.zero}, {text} {result}")
    return result


_SPECIAL: dict[Op, Callable[[Body, UOp, Register, list[str]], str]] = {
    ops.NEG: _negate,
    ops.SHL: _shift,
    ops.SHR: _shift,
    ops.TRUNCDIV: _divide,
    ops.TRUNCMOD: _divide,
}


def _unsupported(node: UOp, register: Register) -> CompileError:
    return CompileError(
        f"LLVM code has no {node.op.name} for {register.dtype}",
        where=repr(node),
        hint="the target's capabilities should leave this op out, so that it is decomposed",
    )


NATIVE = frozenset({*_INSTRUCTIONS, *_INTRINSICS, *_SPECIAL, ops.WHERE, ops.CAST, ops.BITCAST})
"""The elementwise ops that can be rendered: what `Capabilities.ops` of a target may claim."""
