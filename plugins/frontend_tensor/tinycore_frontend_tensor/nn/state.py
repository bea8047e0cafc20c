"""The state of a model: collecting its tensors by name, loading them back, safetensors files.

Files are parsed by the `safetensors` library, which checks every offset and runs no code. Loading is lazy: a
tensor is read when it is asked for.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinycore.errors import DataError, ShapeError, did_you_mean
from tinycore.ir import DType, dtypes
from tinycore_frontend_tensor import graph, modes
from tinycore_frontend_tensor.lazy_numpy import np
from tinycore_frontend_tensor.tensor import Tensor

_NAMES = {
    "F64": dtypes.float64,
    "F32": dtypes.float32,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "F8_E4M3": dtypes.float8_e4m3,
    "F8_E5M2": dtypes.float8_e5m2,
    "I64": dtypes.int64,
    "I32": dtypes.int32,
    "I16": dtypes.int16,
    "I8": dtypes.int8,
    "U64": dtypes.uint64,
    "U32": dtypes.uint32,
    "U16": dtypes.uint16,
    "U8": dtypes.uint8,
    "BOOL": dtypes.bool_,
}


def get_state_dict(model: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor below an object by its dotted path: attributes, lists, tuples and dicts are walked."""
    found: dict[str, Tensor] = {}
    _collect(model, prefix.strip("."), found, set())
    return found


def _collect(value: Any, path: str, found: dict[str, Tensor], above: set[int]) -> None:
    if isinstance(value, Tensor):
        found[path] = value
        return
    children: Iterator[tuple[Any, Any]]
    if isinstance(value, (list, tuple)):
        children = enumerate(value)
    elif isinstance(value, dict):
        children = iter(value.items())
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable_function(value):
        children = iter(vars(value).items())
    else:
        return
    if id(value) in above:  # a cycle
        return
    for name, child in children:
        _collect(child, f"{path}.{name}" if path else str(name), found, above | {id(value)})


def callable_function(value: Any) -> bool:
    """Whether a value is a plain function, whose attributes are no state."""
    return hasattr(value, "__code__") or hasattr(value, "__func__")


def get_parameters(model: Any) -> list[Tensor]:
    """Every tensor below an object that requires gradients, each once."""
    tensors = {id(tensor): tensor for tensor in get_state_dict(model).values() if tensor.requires_grad}
    return list(tensors.values())


def load_state_dict(model: Any, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Write a state into a model's tensors, in place and in one schedule.

    Raises DataError for missing or unexpected names when `strict`, ShapeError for a tensor of another shape;
    nothing is changed then.
    """
    own = get_state_dict(model)
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    if strict and (missing or unexpected):
        lines = [f"missing: {_some(missing)}"] if missing else []
        lines += [f"unexpected: {_some(unexpected)}"] if unexpected else []
        hint = did_you_mean(unexpected[0], missing) if missing and unexpected else None
        raise DataError(
            "the state does not fit the model",
            where="\n".join(lines),
            hint=hint or "load_state_dict(..., strict=False) takes what fits",
        )
    chosen = {name: state[name] for name in own if name in state}
    for name, tensor in chosen.items():
        if tensor.shape != own[name].shape:
            raise ShapeError(
                f"{name} has shape {graph.text(own[name].shape)} in the model, "
                f"{graph.text(tensor.shape)} in the state"
            )
    with modes.record_gradients(False):
        for name, tensor in chosen.items():
            own[name].assign(tensor.detach().to(own[name].device))
    if chosen:
        first, *others = [own[name] for name in chosen]
        first.realize(*others)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class LazyState(Mapping[str, Tensor]):
    """The tensors of a safetensors file; each is read from the file when it is asked for."""

    def __init__(self, path: Path, device: str | None) -> None:
        self.path = path
        self.device = device
        self._entries, self._start, self.metadata = _read_header(path)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._entries:
            raise KeyError(name)
        dtype, shape, start, stop = self._entries[name]
        with self.path.open("rb") as file:
            file.seek(self._start + start)
            raw = file.read(stop - start)
        if len(raw) != stop - start:
            raise DataError(f"{self.path} was cut short while it was read", where=name)
        return Tensor(np.frombuffer(raw, dtype.numpy).reshape(shape), dtype=dtype, device=self.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._entries[name][1]


_Entry = tuple[DType, tuple[int, ...], int, int]


def _read_header(path: Path) -> tuple[dict[str, _Entry], int, dict[str, str]]:
    """Names, dtypes, shapes and places, after the library has checked the file."""
    from safetensors import SafetensorError, safe_open

    hint = "download or save it again"
    try:
        with safe_open(str(path), framework="numpy") as checked:
            names = list(checked.keys())
            metadata = dict(checked.metadata() or {})
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except SafetensorError as error:
        raise DataError(f"{path} is not a valid safetensors file: {error}", hint=hint) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", hint=hint) from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    entries: dict[str, _Entry] = {}
    for name in names:
        entry = header[name]
        if entry["dtype"] not in _NAMES:
            raise DataError(
                f"{path}: {name} has dtype {entry['dtype']}", hint="convert the file to a known dtype"
            )
        dtype, shape = _NAMES[entry["dtype"]], tuple(entry["shape"])
        entries[name] = (dtype, shape, *entry["data_offsets"])
    return entries, 8 + length, metadata


def safe_load(path: str | os.PathLike[str], device: str | None = None) -> LazyState:
    """The tensors of a safetensors file by name, read when they are asked for.

    Raises DataError naming the file and what is wrong with it.
    """
    return LazyState(Path(path), device)


def safe_save(
    state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file; a file that was there is replaced at once or not at all."""
    from safetensors.numpy import save

    if state:
        first, *others = state.values()
        first.realize(*others)
    arrays: dict[str, Any] = {}
    for name, tensor in state.items():
        if tensor.dtype not in _NAMES.values():
            raise DataError(f"safetensors files cannot hold {tensor.dtype.name}", where=name)
        arrays[name] = np.ascontiguousarray(tensor.numpy()).reshape(tuple(map(int, tensor.shape)))
    content = save(arrays, dict(metadata) if metadata else None)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
