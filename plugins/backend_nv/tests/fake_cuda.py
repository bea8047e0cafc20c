"""A CUDA driver in Python behind the real C interface.

Device memory is host memory, and a kernel is run by the interpreter from the program that its PTX was made
from. Every argument goes through ctypes both ways.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import c_char_p, c_float, c_int, c_uint64, c_void_p

import numpy as np
from tinycore_backend_nv import driver as api

from tinycore.interpret.program import interpret_program
from tinycore.ir import dims

NAMES = {
    2: b"CUDA_ERROR_OUT_OF_MEMORY",
    218: b"CUDA_ERROR_INVALID_PTX",
    400: b"CUDA_ERROR_INVALID_HANDLE",
    500: b"CUDA_ERROR_NOT_FOUND",
    700: b"CUDA_ERROR_ILLEGAL_ADDRESS",
    1: b"CUDA_ERROR_INVALID_VALUE",
}


class Refused(Exception):
    """Ends a call with a CUresult."""


class FakeCuda:
    """One card with little memory.

    Attributes
    ----------
    programs: what kernels mean, by name; tests fill it in.
    calls: the names of all calls.
    """

    def __init__(self, capability=(9, 0), version=12040, count=1, memory=1 << 24):
        self.attributes = {api.MAJOR: capability[0], api.MINOR: capability[1], api.MULTIPROCESSORS: 132}
        self.version, self.count, self.room = version, count, memory
        self.programs = {}
        self.calls = []
        self.memory = {}
        self.objects = {}
        self.current = None
        for name, parameters in api.SIGNATURES.items():
            setattr(self, name, ctypes.CFUNCTYPE(c_int, *parameters)(self._callback(name)))

    def _callback(self, name):
        method = getattr(self, "_" + name.removeprefix("cu"))

        def call(*arguments):
            self.calls.append(name)
            try:
                method(*arguments)
            except Refused as refusal:
                return refusal.args[0]
            return 0

        return call

    def _new(self, kind, value=None):
        handle = 0x1000 + 16 * len(self.objects)
        self.objects[handle] = (kind, value)
        return handle

    def _get(self, kind, handle):
        found = self.objects.get(handle)
        if found is None or found[0] != kind:
            raise Refused(400)
        return found[1]

    def _drop(self, kind, handle):
        self._get(kind, handle)
        self.objects[handle] = ("freed", None)

    def alive(self):
        return sorted(kind for kind, _ in self.objects.values() if kind != "freed")

    # --- devices and contexts ---

    def _Init(self, flags): ...

    def _DriverGetVersion(self, out):
        out[0] = self.version

    def _GetErrorName(self, status, out):
        out[0] = c_char_p(NAMES[status])

    def _GetErrorString(self, status, out):
        out[0] = c_char_p(b"said in words")

    def _DeviceGetCount(self, out):
        out[0] = self.count

    def _DeviceGet(self, out, index):
        out[0] = index

    def _DeviceGetName(self, name, size, device): ...

    def _DeviceGetAttribute(self, out, attribute, device):
        out[0] = self.attributes[attribute]

    def _DevicePrimaryCtxRetain(self, out, device):
        out[0] = self._new("context")

    def _DevicePrimaryCtxRelease_v2(self, device):
        context = next(handle for handle, (kind, _) in self.objects.items() if kind == "context")
        self._drop("context", context)
        self.memory.clear()

    def _CtxSetCurrent(self, context):
        self._get("context", context)
        self.current = context

    # --- memory ---

    def _MemAlloc_v2(self, out, size):
        if size == 0:
            raise Refused(1)
        if size + sum(len(block) for block in self.memory.values()) > self.room:
            raise Refused(2)
        block = np.full(size + 256, 0xAB, np.uint8)
        address = (block.ctypes.data + 255) // 256 * 256
        self.memory[address] = block[address - block.ctypes.data :][:size]
        out[0] = address

    def _MemFree_v2(self, address):
        if address not in self.memory:
            raise Refused(1)
        del self.memory[address]

    def _bytes(self, address, size):
        for start, block in self.memory.items():
            if start <= address and address + size <= start + len(block):
                return block[address - start :][:size]
        raise Refused(700)

    def _MemcpyHtoD_v2(self, target, source, size):
        self._bytes(target, size)[:] = np.frombuffer(ctypes.string_at(source, size), np.uint8)

    def _MemcpyDtoH_v2(self, target, source, size):
        ctypes.memmove(target, self._bytes(source, size).tobytes(), size)

    # --- code ---

    def _ModuleLoadDataEx(self, out, data, count, options, values):
        ptx = ctypes.string_at(data).decode()
        if ".version" not in ptx or ".target sm_" not in ptx:
            named = dict(zip(options[:count], values[:count], strict=True))
            log = b"ptxas fatal: line 1; parsing error"
            ctypes.memmove(named[api.JIT_ERROR_LOG_BUFFER], log, len(log) + 1)
            raise Refused(218)
        out[0] = self._new("module", ptx)

    def _ModuleGetFunction(self, out, module, name):
        ptx = self._get("module", module)
        if f".entry {name.decode()}(" not in ptx:
            raise Refused(500)
        out[0] = self._new("function", (name.decode(), ptx))

    def _ModuleUnload(self, module):
        self._drop("module", module)

    def _LaunchKernel(self, function, *rest):
        grid, block, (_, stream, parameters, _) = rest[:3], rest[3:6], rest[6:]
        self._get("stream", stream)
        self._run(self._get("function", function), grid, block, parameters)

    def _run(self, function, grid, block, parameters):
        name, ptx = function
        if 0 in grid or not all(grid):
            raise Refused(1)
        required = re.search(r"\.reqntid (\d+), (\d+), (\d+)", ptx)
        if required is None or tuple(map(int, required.groups())) != tuple(block):
            raise Refused(1)
        program = self.programs[name]
        count = len(program.parameters) + len(program.variables)
        pointers = (c_void_p * count).from_address(parameters)
        words = [c_uint64.from_address(pointer).value for pointer in pointers]
        bindings = dict(zip(program.variables, words[len(program.parameters) :], strict=True))
        buffers = {}
        for param, address in zip(program.parameters, words, strict=False):
            size = int(dims.evaluate(dims.product(param.arg[1]), bindings))
            memory = self._bytes(address, size * param.dtype.itemsize)
            buffers[param.arg[0]] = memory.view(param.dtype.numpy)
        launched = tuple(reversed(grid))[3 - len(program.grid) :] if program.grid else ()
        interpret_program(program.linear, buffers, bindings, launched, program.group)

    # --- streams and events ---

    def _StreamCreate(self, out, flags):
        out[0] = self._new("stream")

    def _StreamSynchronize(self, stream):
        self._get("stream", stream)

    def _StreamDestroy_v2(self, stream):
        self._drop("stream", stream)

    def _EventCreate(self, out, flags):
        out[0] = self._new("event", [])

    def _EventRecord(self, event, stream):
        self._get("event", event).append(len(self.calls))

    def _EventSynchronize(self, event):
        self._get("event", event)

    def _EventElapsedTime(self, out, start, stop):
        out[0] = c_float(float(self._get("event", stop)[-1] - self._get("event", start)[-1]))

    def _EventDestroy_v2(self, event):
        self._drop("event", event)

    # --- graphs ---

    def _GraphCreate(self, out, flags):
        out[0] = self._new("graph", [])

    def _GraphAddKernelNode_v2(self, out, graph, dependencies, count, node):
        nodes = self._get("graph", graph)
        assert [dependencies[k] for k in range(count)] == nodes[-1:], "a chain"
        out[0] = self._new("node", self._captured(node))
        nodes.append(out[0])

    def _captured(self, node):
        """The launch with its arguments copied, as CUDA does."""
        node = node[0]
        name, ptx = self._get("function", node.function)
        program = self.programs[name]
        count = len(program.parameters) + len(program.variables)
        pointers = (c_void_p * count).from_address(node.parameters)
        words = (c_uint64 * count)(*[c_uint64.from_address(pointer).value for pointer in pointers])
        copied = (c_void_p * count)(*[ctypes.addressof(words) + 8 * k for k in range(count)])
        grid, block = (node.grid_x, node.grid_y, node.grid_z), (node.block_x, node.block_y, node.block_z)
        return [((name, ptx), grid, block, ctypes.addressof(copied)), (words, copied)]

    def _GraphInstantiateWithFlags(self, out, graph, flags):
        out[0] = self._new("executable", self._get("graph", graph))

    def _GraphExecKernelNodeSetParams_v2(self, executable, node, parameters):
        assert node in self._get("executable", executable)
        self._get("node", node)[:] = self._captured(parameters)

    def _GraphLaunch(self, executable, stream):
        self._get("stream", stream)
        for node in self._get("executable", executable):
            self._run(*self._get("node", node)[0])

    def _GraphExecDestroy(self, executable):
        self._drop("executable", executable)

    def _GraphDestroy(self, graph):
        for node in self._get("graph", graph):
            self._drop("node", node)
        self._drop("graph", graph)
