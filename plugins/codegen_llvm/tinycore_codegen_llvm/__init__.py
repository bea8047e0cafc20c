"""LLVM IR renderer shared by the backends that compile with LLVM.

`render(program, flavour)` writes the text of one module; a `Flavour` says what differs between targets
(the signature, the work-item ids, address spaces). `machine.Machine` turns the text into assembly or objects.
`NATIVE` are the ops that a target may claim, `fingerprint` is what the code depends on besides the program.
"""

from __future__ import annotations

import functools

from tinycore_codegen_llvm.arithmetic import NATIVE
from tinycore_codegen_llvm.cpu import CPU
from tinycore_codegen_llvm.flavour import Arguments, Flavour
from tinycore_codegen_llvm.render import render

__all__ = ["CPU", "NATIVE", "Arguments", "Flavour", "fingerprint", "render"]

REVISION = 1
"""Counts changes of this package that change the code it makes."""


@functools.cache
def fingerprint() -> str:
    """The versions of this renderer and of LLVM, for cache keys; LLVM is not loaded for it.

    >>> fingerprint().startswith("llvm-")
    True
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        compiler = version("llvmlite")
    except PackageNotFoundError:
        compiler = "none"
    return f"llvm-{REVISION}-{compiler}"
