"""LLVM IR renderer shared by the backends that compile with LLVM.

`render(program, flavour)` writes the text of one module; a `Flavour` says what differs between targets
(the signature, the work-item ids, address spaces). `machine.Machine` turns the text into assembly or objects.
`NATIVE` are the ops that a target may claim, `fingerprint` is what the code depends on besides the program.

Everything but `fingerprint` is imported when it is used: a process whose kernels are all cached needs no
more.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinycore_codegen_llvm.arithmetic import NATIVE
    from tinycore_codegen_llvm.cpu import CPU
    from tinycore_codegen_llvm.flavour import Arguments, Flavour
    from tinycore_codegen_llvm.renderer import render

__all__ = ["CPU", "NATIVE", "Arguments", "Flavour", "fingerprint", "render"]

_HOMES = {
    "CPU": "cpu",
    "NATIVE": "arithmetic",
    "Arguments": "flavour",
    "Flavour": "flavour",
    "render": "renderer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


@functools.cache
def fingerprint() -> str:
    """Changes with this renderer and with LLVM, for cache keys; LLVM is not loaded for it.

    An edited renderer must not meet code that an older one wrote, so its files count and not its version.

    >>> fingerprint().startswith("llvm-")
    True
    """
    from tinycore.plugin.installed import version_of

    compiler = version_of("llvmlite") or "none"
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"llvm-{compiler}-{digest.hexdigest()}"
