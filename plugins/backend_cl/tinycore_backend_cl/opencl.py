"""OpenCL C: the dialect of the C-like renderer, and the natives of ``opencl.rules``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from tinycore import rules
from tinycore.codegen.cstyle import Dialect, lanes_of, render_c
from tinycore.codegen.program import Program
from tinycore.errors import CompileError
from tinycore.ir import DType, Target, UOp, dtypes
from tinycore.passes.cstyle import element, is_bool, is_finite, is_float, is_plain, type_of, zero

__all__ = ["dialect", "element", "is_bool", "is_finite", "is_float", "is_plain", "render", "type_of", "zero"]

TYPES = {
    "bool": "bool",
    "int8": "char",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "index": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "float16": "half",
    "float32": "float",
    "float64": "double",
}
SUFFIXES = {"uint32": "u", "int64": "l", "index": "l", "uint64": "ul", "float16": "h", "float32": "f"}
EXTENSIONS = {dtypes.float16: "cl_khr_fp16", dtypes.float64: "cl_khr_fp64"}
"""What must be switched on before OpenCL 1.2 computes with a dtype."""
WIDTHS = (2, 3, 4, 8, 16)
"""Lanes that OpenCL vectors can have."""


def render(program: Program, target: Target) -> str:
    """The OpenCL C of a program. Raises CompileError for what the language or the target lacks."""
    arithmetic = target.capabilities.arithmetic
    text = render_c(program, target, dialect(dtypes.float16 in arithmetic))
    used = {node.dtype for node in program.linear.toposort()} & arithmetic
    extensions = [name for dtype, name in EXTENSIONS.items() if dtype in used]
    pragmas = [f"#pragma OPENCL EXTENSION {name} : enable" for name in extensions]
    return "\n".join(["#pragma OPENCL FP_CONTRACT OFF", *pragmas, text])


@functools.cache
def dialect(half: bool) -> Dialect:
    """OpenCL C for devices with or without arithmetic on float16."""
    held = {"bfloat16": dtypes.uint16, "float8_e4m3": dtypes.uint8, "float8_e5m2": dtypes.uint8}
    if not half:
        held["float16"] = dtypes.uint16
    own = rules.load("tinycore_backend_cl.opencl").renders["opencl"]
    common = rules.load("tinycore.passes.cstyle").renders["cstyle"]
    return Dialect(
        name="OpenCL C",
        rules=(own, common),
        types=TYPES,
        memory_types={"bool": "uchar"},
        bits=held,
        suffixes=SUFFIXES,
        declaration="{type} {name} = {text};",
        vector_type=_vector_type,
        vector=_vector,
        lane=_lane,
        assemble=_assemble,
        helpers=_helpers(),
    )


def _vector_type(scalar: str, lanes: int) -> str:
    return f"{'char' if scalar == 'bool' else scalar}{lanes}"


def _vector(type_text: str, texts: Sequence[str], dtype: DType) -> str:
    if dtype.kind == "bool":  # masks are 0 and -1
        texts = [f"-({text})" for text in texts]
    return f"({type_text})({', '.join(texts)})"


def _lane(node: UOp, text: str, lane: int) -> str:
    element = f"{text}.s{lane:x}"
    return f"({element} != 0)" if node.dtype.kind == "bool" else element


def _assemble(program: Program, parameters: Sequence[str], memory: Sequence[str], body: Sequence[str]) -> str:
    """The kernel; the first line of every parameter is its declaration, the others begin the body."""
    declarations = [text.splitlines()[0] for text in parameters]
    opening = [line for text in parameters for line in text.splitlines()[1:]]
    group = [*reversed(program.group), 1, 1][:3]
    sizes = ", ".join(map(str, group))
    attribute = f"__attribute__((reqd_work_group_size({sizes})))\n" if program.group else ""
    lines = [
        f"__kernel {attribute}void {program.name}(",
        ",\n".join(f"    {declaration}" for declaration in declarations) + ") {",
        *[f"  {line}" for line in (*opening, *memory)],
        *body,
        "}",
    ]
    return "\n".join(lines) + "\n"


# --- natives of opencl.rules --------------------------------------------------------------------------------


def dimension(context: Any, node: UOp) -> int:
    """The OpenCL dimension of a grid RANGE: x is the last one of its kind."""
    axis, kind = node.arg
    program: Program = context.program
    return len(program.grid if kind == "global" else program.group) - 1 - int(axis)


def in_groups(context: Any, node: UOp) -> bool:
    """Whether the program says how large its work-groups are."""
    return bool(context.program.group)


def is_written(context: Any, node: UOp) -> bool:
    """Whether the program stores to a PARAM."""
    return node.arg[0] in context.program.written


def is_bits(context: Any, node: UOp) -> bool:
    """Whether registers hold this value as bits."""
    return node.dtype.name in context.dialect.bits


def is_vector(node: UOp) -> bool:
    """Whether a value has lanes. Raises CompileError for a number of lanes that OpenCL does not have."""
    lanes = lanes_of(node)
    if node.shape and lanes not in WIDTHS:
        hint = "use 2, 3, 4, 8 or 16"
        raise CompileError(f"OpenCL has no vectors of {lanes} lanes", where=repr(node), hint=hint)
    return bool(node.shape)


def width(node: UOp) -> str:
    """The lanes as types and functions end in them: nothing for a scalar."""
    return str(lanes_of(node)) if is_vector(node) else ""


def mask(context: Any, node: UOp) -> str:
    """The vector type that chooses between values like this one: signed, of the same size."""
    return f"{TYPES[f'int{8 * node.dtype.itemsize}']}{width(node)}"


def unsigned(context: Any, node: UOp) -> str:
    """The unsigned type of the same size."""
    return f"{TYPES[f'uint{8 * (node.dtype.itemsize or 8)}']}{width(node)}"


def size(node: UOp) -> int:
    """How many elements a SCRATCH has."""
    return math.prod(dim for dim in node.shape if isinstance(dim, int))


def pattern(context: Any, node: UOp) -> str:
    """A constant by its bits: what is held as bits, what no literal can spell, and masks."""
    bits, dtype = int(node.arg[0]), node.dtype
    if dtype.kind == "bool":
        text = str(-bits)
    elif is_bits(context, node):
        text = f"{bits:#x}"
    else:
        unsigned_type = TYPES[f"uint{8 * dtype.itemsize}"]
        text = f"as_{TYPES[dtype.name]}(({unsigned_type}){bits:#x})"
    return f"({type_of(context, node)})({text})" if node.shape else text


_HELPERS = {
    "float_from_half": """\
inline float{k} float_from_half{k}(ushort{k} x) {{
  return vload_half{k}(0, (const half*)&x);
}}""",
    "half_from_float": """\
inline ushort{k} half_from_float{k}(float{k} x) {{
  ushort{k} bits;
  vstore_half{k}_rte(x, 0, (half*)&bits);
  return bits;
}}""",
    "half_from_double": """\
inline ushort{k} half_from_double{k}(double{k} x) {{
  ushort{k} bits;
  vstore_half{k}_rte(x, 0, (half*)&bits);
  return bits;
}}""",
    "bfloat16_from_float": """\
inline ushort{k} bfloat16_from_float{k}(float{k} x) {{
  const uint{k} bits = as_uint{k}(x);
  const uint{k} rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return convert_ushort{k}(select(rounded, (bits >> 16) | 0x40u, isnan(x)));
}}""",
    # Cut towards zero with the last bit set where anything was lost: a second rounding then answers what one
    # rounding would.
    "odd_from_double": """\
inline float{k} odd_from_double{k}(double{k} x) {{
  const float{k} cut = convert_float{k}_rtz(x);
  return select(cut, as_float{k}(as_uint{k}(cut) | 1u), convert_int{k}(convert_double{k}(cut) != x));
}}""",
}


def _helpers() -> dict[str, str]:
    """Every helper in every width."""
    return {f"{name}{k}": text.format(k=k) for name, text in _HELPERS.items() for k in ("", *WIDTHS)}
