"""LLVM IR text to a relocatable object for this machine, through llvmlite.

No IR pass runs: the renderer writes code that is already in its final shape (accumulators in phis, explicit
vectors), so optimising it again would cost twice the time of code generation and win nothing. llvmlite is
imported by the first compilation, not by this module: a process whose kernels are cached never loads LLVM.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import re
import threading
from pathlib import Path
from typing import Any

from tinycore.errors import CompileError

PROCESS_OPTIONS = ("-disable-lsr",)
"""Options of LLVM that hold for the whole process. Loop strength reduction takes 20-50 % of code generation
and slows matrix multiplication, attention and convolution by 4-18 %."""

FEATURES = "-prefer-256-bit"
"""Added to the features of the host: vectors are written explicitly, and 512 bits mean 512 bits."""

OPTIMISATION = 2
REVISION = 1
"""Counts changes of this module that change the code it makes."""

COMPILER_LIBRARY_SYMBOLS = frozenset({"memcpy", "memmove", "memset"})
"""External symbols that any kernel may need: code generation calls them for the memory intrinsics."""

_SYMBOLS = re.compile(r"\bdeclare\b(?![^@\n]*@llvm\.)|\bextern")
"""Where a text may name a symbol that is not its own; intrinsics are none."""

_lock = threading.Lock()


@functools.cache
def fingerprint() -> str:
    """What code generation depends on besides the IR: part of every cache key. LLVM is not loaded for it.

    The version of llvmlite stands for LLVM's; the CPU is known by what the operating system says about it.

    >>> fingerprint() == fingerprint()
    True
    """
    from tinycore.plugin.installed import version_of

    compiler = version_of("llvmlite") or "none"
    parts = (compiler, *PROCESS_OPTIONS, FEATURES, str(OPTIMISATION), str(REVISION), *_processor())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def compile_ir(ir_text: str, *, allowed_symbols: frozenset[str] = frozenset()) -> bytes:
    """The relocatable object (ELF, Mach-O or COFF, as the platform has it) for a module of LLVM IR text.

    Parameters
    ----------
    ir_text:
        A module without a target triple or data layout; both are set to the host's.
    allowed_symbols:
        External functions that the module may call, besides `memcpy`, `memmove`, `memset` and intrinsics.

    Raises
    ------
    CompileError
        The text does not parse or verify (the offending line is shown), calls something that is not allowed,
        or LLVM is not installed.

    >>> compile_ir("define void @k(ptr %arguments, i64 %chunk, i64 %thread) {\\n  ret void\\n}")[:4]
    b'\\x7fELF'
    """
    with _lock:
        machine, module = _parsed(ir_text)
        if _SYMBOLS.search(ir_text):
            _check_symbols(module, allowed_symbols | COMPILER_LIBRARY_SYMBOLS)
        return bytes(machine.emit_object(module))


def disassembly(ir_text: str) -> str:
    """The assembly text that `compile_ir` would encode (for `DEBUG=4` and for tests that look for spills)."""
    with _lock:
        machine, module = _parsed(ir_text)
        return str(machine.emit_assembly(module))


def _parsed(ir_text: str) -> tuple[Any, Any]:
    from tinycore_codegen_llvm.machine import explained

    binding, machine = _target_machine()
    triple, layout = _target_names()
    try:
        module = binding.parse_assembly(ir_text)
        module.triple = triple
        module.data_layout = layout
        module.verify()
    except RuntimeError as error:
        raise explained(str(error), ir_text) from None
    return machine, module


@functools.cache
def _target_machine() -> tuple[Any, Any]:
    try:
        import llvmlite.binding as binding
    except ImportError as error:
        raise CompileError(
            f"llvmlite cannot be imported: {error}", hint="run: python -m pip install llvmlite"
        ) from None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    for option in PROCESS_OPTIONS:
        binding.set_option("tinycore", option)
    features = binding.get_host_cpu_features().flatten()
    target = binding.Target.from_triple(binding.get_process_triple())
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=f"{features},{FEATURES}" if platform.machine() in ("x86_64", "AMD64") else features,
        opt=OPTIMISATION,
        reloc="pic",
        codemodel="small",
    )
    return binding, machine


@functools.cache
def _target_names() -> tuple[str, str]:
    """The triple and the data layout: each costs several calls, for which other threads would be waited for."""
    _, machine = _target_machine()
    return str(machine.triple), str(machine.target_data)


def _check_symbols(module: Any, allowed: frozenset[str]) -> None:
    for value in (*module.functions, *module.global_variables):
        if value.is_declaration and not value.name.startswith("llvm.") and value.name not in allowed:
            raise CompileError(
                f"the kernel needs the external symbol {value.name!r}",
                where=f"allowed here: {', '.join(sorted(allowed))}",
                hint="kernels are self-contained: lower it to arithmetic",
            )


def _processor() -> tuple[str, ...]:
    """What identifies the instruction set and the tuning of this CPU."""
    identity = [platform.system(), platform.machine()]
    wanted = {"vendor_id", "cpu family", "model", "stepping", "flags"}
    wanted |= {"CPU implementer", "CPU part", "CPU variant", "Features"}
    try:
        # The first processor is enough: a kernel does not know which core runs it.
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return (*identity, platform.processor())
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            identity.append(f"{name.strip()}={value.strip()}")
    return tuple(identity)


@functools.cache
def llvm_linker() -> tuple[Any, Any]:
    """LLVM's in-process linker, for platforms where `objects.py` has no loader of its own."""
    binding, machine = _target_machine()
    return binding, binding.create_lljit_compiler(machine)
