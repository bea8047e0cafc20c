"""LLVM IR renderer shared by the backends that compile with LLVM.

`render(program, flavour)` writes the text of one module; a `Flavour` says what differs between targets
(the signature, the work-item ids, address spaces). `machine.Machine` turns the text into assembly or objects.
"""

from tinycore_codegen_llvm.cpu import CPU
from tinycore_codegen_llvm.flavour import Arguments, Flavour
from tinycore_codegen_llvm.render import render

__all__ = ["CPU", "Arguments", "Flavour", "render"]
