"""The weights in a folder, by public name and in PyTorch's layout, whatever file holds them.

Safetensors, whole or in shards, are read tensor by tensor as they are asked for, so that a large network needs little
more host memory than its parameters. The msgpack files of the old Flax branches are read at once and renamed.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import ml_dtypes  # noqa: F401  (numpy learns bfloat16 from it)
import numpy as np
from safetensors import SafetensorError, safe_open

from videogen_jax.weights import naming

# In the order in which they are looked for: full weights before half-precision ones, one file before shards, and Flax's
# own last.
WEIGHTS_NAMES = (
    *(
        f"{stem}.{ending}"
        for ending in ("safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json")
        for stem in ("diffusion_pytorch_model", "model")
    ),
    "diffusion_flax_model.msgpack",
    "flax_model.msgpack",
)
_PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")


class StoredTensors(Mapping[str, np.ndarray]):
    """Tensors of safetensors files, each read from disk when it is asked for.

    Args:
      files: the files; a name that two of them have is the later one's.

    Raises:
      ValueError: a file is damaged or not whole (the header is read at once).
    """

    def __init__(self, files: list[Path]):
        self._places: dict[str, tuple[Path, Any]] = {}
        for path in files:
            try:
                file = safe_open(path, framework="np")
            except (SafetensorError, OSError) as error:
                raise ValueError(
                    f"{path} cannot be read as safetensors: it is damaged or not whole ({error})"
                ) from error
            self._places.update((name, (path, file)) for name in file.keys())  # noqa: SIM118  (it is no mapping)

    def __getitem__(self, name: str) -> np.ndarray:
        path, file = self._places[name]
        try:
            return file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: {name} cannot be read: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Prefixed(Mapping[str, np.ndarray]):
    """The tensors whose names begin with a prefix, by the rest of their names."""

    def __init__(self, stored: Mapping[str, np.ndarray], prefix: str):
        self._stored, self._prefix = stored, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self._stored[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._stored if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def load_tensors(folder: Path) -> Mapping[str, np.ndarray]:
    """The weights of a part: public name -> host array in PyTorch's layout and the stored dtype.

    The first of WEIGHTS_NAMES that the folder has is taken, an index together with all the shards it names.

    Raises:
      ValueError: the folder has no weights (a pickle is not opened: it can run any code), or a file is damaged, or a
        shard is missing.
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
            f"{folder} has only pickled weights ({pickles[0]}), which can run any code when opened; safetensors are "
            f"needed: load the part once with diffusers or transformers and call "
            f"save_pretrained(folder, safe_serialization=True)"
        )
    raise ValueError(f"{folder} has no weights: neither {WEIGHTS_NAMES[0]} nor {WEIGHTS_NAMES[1]} is there")


def _shards(index_path: Path) -> list[Path]:
    """The files that an index names, after making sure that they hold what it says."""
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index_path} has no weight_map from tensor names to files")
    files = []
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{index_path} names the file '{shard}', which is not beside it")
        if not (index_path.parent / shard).is_file():
            raise ValueError(f"{index_path.parent / shard} is missing, but {index_path.name} names it")
        files.append(index_path.parent / shard)
    lacking = sorted(set(weight_map) - set(StoredTensors(files)))
    if lacking:
        raise ValueError(f"{index_path} names {lacking[0]} and {len(lacking) - 1} more that its files do not hold")
    return files


def _load_msgpack(path: Path) -> dict[str, np.ndarray]:
    """Flax's file: a tree of linen parameters, whose lists are joined by an underscore or nested by number."""
    try:
        tree = flax.serialization.msgpack_restore(path.read_bytes())
        return naming.to_public(tree["params"] if set(tree) == {"params"} else tree)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as the parameters of a Flax network: {error}") from error
