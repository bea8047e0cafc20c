"""Target machines: LLVM IR text to assembly or objects, for any target that the wheel of llvmlite holds.

llvmlite is imported by the first use. One lock guards LLVM, as llvmlite does itself.
"""

from __future__ import annotations

import functools
import re
import threading
from dataclasses import dataclass
from typing import Any

from tinycore.errors import CompileError

_lock = threading.Lock()
_ERROR = re.compile(r"(?:<string>|<stdin>)?:(\d+):(\d+): error: (.*)")


@dataclass(frozen=True, slots=True)
class Machine:
    """What LLVM compiles for.

    >>> host = Machine.host()
    >>> "retq" in host.assembly("define void @k() {\\n  ret void\\n}") or not host.triple.startswith("x86_64")
    True
    """

    triple: str
    cpu: str = ""
    features: str = ""
    optimisation: int = 2

    @staticmethod
    def host() -> Machine:
        """The processor that this process runs on, with vectors as wide as they are written."""
        binding = _binding()
        features = binding.get_host_cpu_features().flatten()
        triple = binding.get_process_triple()
        if triple.startswith("x86_64"):
            features += ",-prefer-256-bit"
        return Machine(triple, binding.get_host_cpu_name(), features)

    def assembly(self, text: str) -> str:
        """Assembly text of a module. Raises CompileError with the offending line."""
        with _lock:
            machine = _machine(self)
            return str(machine.emit_assembly(_parse(machine, self.triple, text)))

    def object_code(self, text: str) -> bytes:
        """A relocatable object of a module. Raises CompileError with the offending line."""
        with _lock:
            machine = _machine(self)
            return bytes(machine.emit_object(_parse(machine, self.triple, text)))


@functools.cache
def _binding() -> Any:
    try:
        import llvmlite.binding as binding
    except ImportError as error:
        raise CompileError(
            f"llvmlite cannot be imported: {error}", hint="python -m pip install llvmlite"
        ) from None
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    return binding


@functools.cache
def _machine(machine: Machine) -> Any:
    try:
        target = _binding().Target.from_triple(machine.triple)
    except RuntimeError as error:
        raise CompileError(f"this LLVM cannot compile for {machine.triple}: {error}") from None
    return target.create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=machine.optimisation, reloc="pic", codemodel="small"
    )


def _parse(machine: Any, triple: str, text: str) -> Any:
    try:
        module = _binding().parse_assembly(text)
        module.triple = triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise explained(str(error), text) from None
    return module


def explained(message: str, text: str) -> CompileError:
    """LLVM's complaint with the line of IR that it is about, and a caret."""
    found = _ERROR.search(message)
    if found is None:
        return CompileError("LLVM does not accept the generated IR", where=message.strip())
    line, column, what = int(found[1]), int(found[2]), found[3]
    lines = text.splitlines()
    shown = [
        f"{number:5}  {lines[number - 1]}"
        for number in range(max(1, line - 2), line + 1)
        if number <= len(lines)
    ]
    return CompileError(
        f"LLVM does not accept line {line} of the generated IR: {what}",
        where="\n".join([*shown, " " * (6 + column) + "^"]),
    )
