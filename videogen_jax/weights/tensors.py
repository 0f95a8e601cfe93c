"""The weights of a folder by public name and in PyTorch's layout, in any of the supported file formats.

Safetensors, in one file or in shards, are read tensor by tensor on access, so that loading a large network needs little
more host memory than its parameters. The msgpack files of the old Flax branches are read at once and renamed.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
from safetensors import SafetensorError, safe_open

from videogen_jax.weights import naming

# In order of preference: full precision before half precision, one file before shards, and Flax's own files last.
WEIGHTS_NAMES = (
    *(
        f"{stem}.{ending}"
        for ending in ("safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json")
        for stem in ("diffusion_pytorch_model", "model")
    ),
    "diffusion_flax_model.msgpack",
    "flax_model.msgpack",
)
# Bytes read of mapped files before they are closed and opened again: until then what was read counts as this process's
# memory, beside the arrays made from it.
_MOST_MAPPED = 2**28
_PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")


class StoredTensors(Mapping[str, np.ndarray]):
    """The tensors of safetensors files, each read from disk on access.

    Args:
      files: the files; if two have a tensor of the same name, the later file's is read.

    Raises:
      ValueError: a file is damaged or truncated, according to its header.
    """

    def __init__(self, files: list[Path]):
        self._files = {path: _open(path) for path in files}
        self._places = {name: path for path, file in self._files.items() for name in file.keys()}  # noqa: SIM118
        self._mapped = 0

    def __getitem__(self, name: str) -> np.ndarray:
        path = self._places[name]
        try:
            tensor = self._files[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: {name} cannot be read: {error}") from error
        self._mapped += tensor.nbytes
        if self._mapped > _MOST_MAPPED:
            self._files, self._mapped = {path: _open(path) for path in self._files}, 0
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: it is damaged or truncated ({error})") from error


class Prefixed(Mapping[str, np.ndarray]):
    """The tensors whose names begin with a prefix, under their names without it."""

    def __init__(self, stored: Mapping[str, np.ndarray], prefix: str):
        self._stored, self._prefix = stored, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self._stored[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._stored if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def load_tensors(folder: Path) -> Mapping[str, np.ndarray]:
    """Read the weights of a part: public name -> host array in PyTorch's layout and the stored dtype.

    The first of WEIGHTS_NAMES in the folder is read; an index is read with all its shards.

    Raises:
      ValueError: the folder has no weights (pickles are not opened, because they can execute code), a file is damaged,
        or a shard is missing.
    """
    for name in WEIGHTS_NAMES:
        path = folder / name
        if path.is_file():
            if name.endswith(".msgpack"):
                return _load_msgpack(path)
            return StoredTensors(_shards(path) if name.endswith(".json") else [path])
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    pickles = [name for name in files if name.endswith(_PICKLE_SUFFIXES)]
    if pickles:
        raise ValueError(
            f"{folder} has only pickled weights ({pickles[0]}), which can execute code when opened; convert them to "
            f"safetensors: load the part once with diffusers or transformers and call "
            f"save_pretrained(folder, safe_serialization=True)"
        )
    raise ValueError(f"{folder} has no weights: neither {WEIGHTS_NAMES[0]} nor {WEIGHTS_NAMES[1]} exists")


def _shards(index_path: Path) -> list[Path]:
    """Return the files that an index names, after checking that they contain the tensors it lists."""
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index_path} has no weight_map from tensor names to files")
    files = []
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{index_path} names the file '{shard}', which is not in the same folder")
        if not (index_path.parent / shard).is_file():
            raise ValueError(f"{index_path.parent / shard} is missing, but {index_path.name} names it")
        files.append(index_path.parent / shard)
    missing = sorted(set(weight_map) - set(StoredTensors(files)))
    if missing:
        raise ValueError(f"{index_path} names {missing[0]} and {len(missing) - 1} more that its files do not contain")
    return files


def _load_msgpack(path: Path) -> dict[str, np.ndarray]:
    """Read Flax's file: a tree of linen parameters, with list indices joined by an underscore or nested by number."""
    try:
        from flax.serialization import msgpack_restore  # here, since it imports JAX, which takes seconds

        tree = msgpack_restore(path.read_bytes())
        return naming.to_public(tree["params"] if set(tree) == {"params"} else tree)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as the parameters of a Flax network: {error}") from error
