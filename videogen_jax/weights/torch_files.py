"""Reading tensors from PyTorch's own files (.pt, .pth, TorchScript), without PyTorch and without executing code.

Such a file is a pickle and raw data, and unpickling may call any function that the pickle names. Here every name is
looked up in a short list: the few functions that build tensors are our own, TorchScript modules become plain mappings
of their attributes, and any other name is an error. Nothing in the file is ever executed.
"""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Module(dict):
    """The attributes of a TorchScript module."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)


class _StorageType(NamedTuple):
    dtype: np.dtype


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(shape), tuple(strides))


def _rebuild_parameter(data, *_) -> _Tensor:
    return data


def _restore_type_tag(value, *_) -> Any:
    return value


def _build_list(data) -> list:
    return list(data)


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.jit._pickle", "restore_type_tag"): _restore_type_tag,
    **{("torch.jit._pickle", f"build_{kind}list"): _build_list for kind in ("int", "double", "bool", "tensor")},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that accepts only the names in the list above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "torch" and name in _DTYPES:
            return _StorageType(np.dtype(_DTYPES[name]))
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a file of tensors does not need")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, size, *_ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"it has a {kind!r}, which a file of tensors does not need")
        return _Storage(str(key), storage_type.dtype, int(size))


def load_torch_file(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of a file written by PyTorch: `torch.save` of a state dict (either format), or TorchScript.

    Returns: dotted name of each tensor -> host array, in PyTorch's layout and the stored dtype.

    Raises:
      ValueError: the file is damaged, or contains anything but tensors in dicts, lists and TorchScript modules, such as
        the pickle of a Python model (`torch.save(model)`).
    """
    path = Path(path)
    try:
        tree, read = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        return {name: _array(tensor, read) for name, tensor in _tensors(tree)}
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path} cannot be read as tensors: {error}. It must be written by torch.save(model.state_dict(), path), "
            "or be a TorchScript or safetensors file"
        ) from error


def _read_zip(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        (index,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("it is big-endian")
        tree = _Unpickler(io.BytesIO(archive.read(index))).load()

    def read(storage: _Storage) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(f"{folder}data/{storage.key}"), storage.dtype)

    return tree, read


def _read_legacy(path: Path) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
    """Read the format before PyTorch 1.6: consecutive pickles, then the length and data of each storage."""
    storages: dict[str, _Storage] = {}

    class Unpickler(_Unpickler):
        def persistent_load(self, pid: Any) -> _Storage:
            if len(pid) > 5 and pid[5] is not None:
                raise pickle.UnpicklingError("it has views of storages, which only very old files have")
            storage = super().persistent_load(pid[:5])
            return storages.setdefault(storage.key, storage)

    with open(path, "rb") as file:
        if (_Unpickler(file).load(), _Unpickler(file).load()) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL):
            raise ValueError("it does not begin like a PyTorch file")
        if not _Unpickler(file).load()["little_endian"]:
            raise ValueError("it is big-endian")
        tree = Unpickler(file).load()
        arrays = {}
        for key in _Unpickler(file).load():
            size = int(np.frombuffer(file.read(8), np.int64)[0])
            dtype = storages[key].dtype
            arrays[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype)
    return tree, lambda storage: arrays[storage.key]


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, _Tensor]]:
    if isinstance(value, _Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))


def _array(tensor: _Tensor, read: Callable[[_Storage], np.ndarray]) -> np.ndarray:
    storage = read(tensor.storage)
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    if min((tensor.offset, *tensor.strides)) < 0 or last >= len(storage):
        raise ValueError("a tensor extends beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, order="C")
