"""Conversions between dtypes, exact to the letter of the op table.

Float to integer truncates, saturates and sends NaN to 0; float16 and bfloat16 are rounded once, to nearest
even, also from float64.
"""

from __future__ import annotations

from tinycore.errors import CompileError
from tinycore.ir import DType, dtypes
from tinycore_codegen_llvm.body import Body
from tinycore_codegen_llvm.flavour import Flavour
from tinycore_codegen_llvm.types import NARROW, Register

SMALL = frozenset({dtypes.float16, dtypes.bfloat16})
"""Floats that are converted by way of float32."""


def cast(body: Body, flavour: Flavour, source: Register, target: DType, value: str) -> str:
    """Convert a value; see the module's docstring. Raises CompileError for the 8-bit floats."""
    if source.dtype is target:
        return value
    for dtype in (source.dtype, target):
        if dtype.is_float and dtype.itemsize == 1:
            raise CompileError(
                f"LLVM code cannot convert {source.dtype} to {target}",
                hint="8-bit floats are decomposed before rendering",
            )
    result = source.retyped(target)
    if target.kind == "bool":
        return _to_bool(body, source, value)
    if source.dtype.kind == "bool":
        if target.is_float:
            return body.emit(
                "cast",
                f"select {source.text} {value}, {result.text} {result.number(1)}, "
                f"{result.text} {result.zero}",
            )
        return body.emit("cast", f"zext {source.text} {value} to {result.text}")
    if source.dtype in SMALL:
        wide = widen(body, source, dtypes.float32, value)
        return cast(body, flavour, source.retyped(dtypes.float32), target, wide)
    if target.is_float:
        return _to_float(body, flavour, source, target, value)
    if source.dtype.is_float:
        return _saturate(body, flavour, source, result, value)
    return _resize(body, source, result, value)


def widen(body: Body, source: Register, target: DType, value: str) -> str:
    """float16 or bfloat16 as float32 or float64, exactly."""
    if source.dtype is dtypes.float16:
        return body.emit("wide", f"fpext {source.text} {value} to {source.retyped(target).text}")
    bits = source.retyped(dtypes.uint32)
    wide = source.retyped(dtypes.float32)
    extended = body.emit("bits", f"zext {source.text} {value} to {bits.text}")
    shifted = body.emit("bits", f"shl {bits.text} {extended}, {bits.number(16)}")
    value = body.emit("wide", f"bitcast {bits.text} {shifted} to {wide.text}")
    if target is dtypes.float64:
        return body.emit("wide", f"fpext {wide.text} {value} to {source.retyped(target).text}")
    return value


def narrow(body: Body, flavour: Flavour, source: Register, target: DType, value: str) -> str:
    """float32 or float64 rounded to float16 or bfloat16, to nearest even, once."""
    single = source.retyped(dtypes.float32)
    if source.dtype is dtypes.float64:
        value = _round_to_odd(body, source, value)
    if target is dtypes.float16:
        return body.emit("narrow", f"fptrunc {single.text} {value} to {source.retyped(target).text}")
    short = source.retyped(dtypes.uint16)
    if flavour.native_bfloat16:
        brain = short.text.replace("i16", "bfloat")
        rounded = body.emit("narrow", f"fptrunc {single.text} {value} to {brain}")
        return body.emit("bits", f"bitcast {brain} {rounded} to {short.text}")
    return _round_bits(body, single, value)


def _round_bits(body: Body, single: Register, value: str) -> str:
    """float32 to the bits of bfloat16: add half of the last place (less one when it is even), then cut."""
    word, short = single.retyped(dtypes.uint32), single.retyped(dtypes.uint16)
    bits = body.emit("bits", f"bitcast {single.text} {value} to {word.text}")
    upper = body.emit("bits", f"lshr {word.text} {bits}, {word.number(16)}")
    odd = body.emit("odd", f"and {word.text} {upper}, {word.number(1)}")
    half = body.emit("half", f"add {word.text} {odd}, {word.number(0x7FFF)}")
    total = body.emit("bits", f"add {word.text} {bits}, {half}")
    rounded = body.emit("bits", f"lshr {word.text} {total}, {word.number(16)}")
    quiet = body.emit("quiet", f"or {word.text} {upper}, {word.number(0x40)}")
    unordered = body.emit("nan", f"fcmp uno {single.text} {value}, {value}")
    chosen = body.emit(
        "bits", f"select {single.condition} {unordered}, {word.text} {quiet}, {word.text} {rounded}"
    )
    return body.emit("narrow", f"trunc {word.text} {chosen} to {short.text}")


def _round_to_odd(body: Body, double: Register, value: str) -> str:
    """float64 to float32 so that a second rounding to fewer bits answers what one rounding would.

    Cut towards zero, and set the last bit where anything was lost: no later rounding can then see a tie that
    is none.
    """
    single = double.retyped(dtypes.float32)
    nearest = body.emit("near", f"fptrunc {double.text} {value} to {single.text}")
    back = body.emit("back", f"fpext {single.text} {nearest} to {double.text}")
    lost = body.emit("lost", f"fcmp une {double.text} {back}, {value}")
    size, size_back = body.intrinsic("fabs", double, value), body.intrinsic("fabs", double, back)
    away = body.emit("away", f"fcmp ogt {double.text} {size_back}, {size}")
    return make_odd(body, single, nearest, away, lost)


def make_odd(body: Body, register: Register, rounded: str, away: str, lost: str) -> str:
    """A rounded result made odd: cut (`away`: its size was rounded up), last bit set if inexact (`lost`)."""
    word = register.retyped(dtypes.uint64 if register.dtype is dtypes.float64 else dtypes.uint32)
    bits = body.emit("bits", f"bitcast {register.text} {rounded} to {word.text}")
    step = body.emit("step", f"zext {register.condition} {away} to {word.text}")
    sticky = body.emit("sticky", f"zext {register.condition} {lost} to {word.text}")
    cut = body.emit("bits", f"sub {word.text} {bits}, {step}")
    odd = body.emit("bits", f"or {word.text} {cut}, {sticky}")
    return body.emit("odd", f"bitcast {word.text} {odd} to {register.text}")


def _to_bool(body: Body, source: Register, value: str) -> str:
    if source.dtype in NARROW:
        value = widen(body, source, dtypes.float32, value)
        source = source.retyped(dtypes.float32)
    compare = "fcmp une" if source.dtype.is_float else "icmp ne"
    return body.emit("cast", f"{compare} {source.text} {value}, {source.zero}")


def _to_float(body: Body, flavour: Flavour, source: Register, target: DType, value: str) -> str:
    result = source.retyped(target)
    if source.dtype.is_float:
        if target in SMALL:
            return narrow(body, flavour, source, target, value)
        word = "fpext" if target.itemsize > source.dtype.itemsize else "fptrunc"
        return body.emit("cast", f"{word} {source.text} {value} to {result.text}")
    word = "uitofp" if source.family == "uint" else "sitofp"
    if target is dtypes.float16:  # float32 holds every integer that does not overflow it
        exact = source.retyped(dtypes.float32)
    elif target is dtypes.bfloat16:
        exact = source.retyped(dtypes.float64)
        value = _fold(body, source, value)
    else:
        return body.emit("cast", f"{word} {source.text} {value} to {result.text}")
    wide = body.emit("cast", f"{word} {source.text} {value} to {exact.text}")
    return narrow(body, flavour, exact, target, wide)


def _fold(body: Body, source: Register, value: str) -> str:
    """A 64-bit integer that float64 holds exactly and that rounds to bfloat16 as `value` does.

    Of large numbers the low 12 bits become a sticky bit, far below what bfloat16 keeps.
    """
    if source.element != "i64":
        return value
    text, signed = source.text, source.family == "int"
    size = body.emit("size", f"{'ashr' if signed else 'lshr'} {text} {value}, {source.number(50)}")
    if signed:  # 0 and -1 are what small numbers leave
        size = body.emit("size", f"add {text} {size}, {source.number(1)}")
    big = body.emit("big", f"icmp ugt {text} {size}, {source.number(1 if signed else 0)}")
    low = body.emit("low", f"and {text} {value}, {source.number(0xFFF)}")
    some = body.emit("some", f"icmp ne {text} {low}, {source.zero}")
    sticky = body.emit(
        "sticky", f"select {source.condition} {some}, {text} {source.number(0x1000)}, {text} {source.zero}"
    )
    high = body.emit("high", f"and {text} {value}, {source.number(-0x1000)}")
    folded = body.emit("folded", f"or {text} {high}, {sticky}")
    return body.emit("folded", f"select {source.condition} {big}, {text} {folded}, {text} {value}")


def _resize(body: Body, source: Register, result: Register, value: str) -> str:
    before, after = (64 if dtype.kind == "index" else dtype.bits for dtype in (source.dtype, result.dtype))
    if before == after:
        return value
    word = "trunc" if after < before else "zext" if source.family == "uint" else "sext"
    return body.emit("cast", f"{word} {source.text} {value} to {result.text}")


def _saturate(body: Body, flavour: Flavour, source: Register, result: Register, value: str) -> str:
    """Float to integer. LLVM's own saturating casts of vectors fall apart into scalars on some targets."""
    unsigned = result.family == "uint"
    if source.lanes is None or flavour.native_saturation:
        function = f"llvm.fpto{'u' if unsigned else 's'}i.sat.{result.suffix}.{source.suffix}"
        return body.call("cast", function, result.text, [(source.text, value)])
    bits = 64 if result.dtype.kind == "index" else result.dtype.bits
    magnitude = bits if unsigned else bits - 1
    lowest, beyond = source.number(0.0 if unsigned else -(2.0**magnitude)), source.number(2.0**magnitude)
    # Also sends NaN to the lowest value, so that the conversion is defined.
    above = body.emit("above", f"fcmp ogt {source.text} {value}, {lowest}")
    clamped = body.emit(
        "clamped", f"select {source.condition} {above}, {source.text} {value}, {source.text} {lowest}"
    )
    # Converting by way of 32 bits is native where 8 and 16 are not.
    wide = result if bits >= 32 else result.retyped(dtypes.int32)
    word = "fptoui" if unsigned and bits >= 32 else "fptosi"
    if bits < 32:
        top = source.number(2.0**magnitude - 1)
        below = body.emit("below", f"fcmp olt {source.text} {clamped}, {top}")
        clamped = body.emit(
            "clamped", f"select {source.condition} {below}, {source.text} {clamped}, {source.text} {top}"
        )
    number = body.emit("number", f"{word} {source.text} {clamped} to {wide.text}")
    if bits >= 32:
        over = body.emit("over", f"fcmp oge {source.text} {value}, {beyond}")
        limit = wide.number(int(result.dtype.max))
        number = body.emit(
            "number", f"select {source.condition} {over}, {wide.text} {limit}, {wide.text} {number}"
        )
    if not unsigned:
        ordered = body.emit("number_is", f"fcmp ord {source.text} {value}, {value}")
        number = body.emit(
            "number", f"select {source.condition} {ordered}, {wide.text} {number}, {wide.text} {wide.zero}"
        )
    return number if wide is result else body.emit("cast", f"trunc {wide.text} {number} to {result.text}")
