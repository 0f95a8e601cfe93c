"""Model folders in the diffusers layout: `model_index.json`, and for each part a sub-folder with `config.json` and
safetensors. Stable Diffusion's own folders are read by the same functions."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np
import safetensors.numpy

from videogen_jax.runtime.files import load_json, save_json, write_atomically
from videogen_jax.weights import naming, tensors
from videogen_jax.weights.tensors import WEIGHTS_NAMES

CONFIG_NAME = "config.json"
INDEX_NAME = "model_index.json"
DTYPES = ("float16", "bfloat16", "float32")


def save_part(
    folder: str | os.PathLike,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    weights_name: str = "diffusion_pytorch_model.safetensors",
    dtype: str = "float16",
    buffers: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one part of a model: `config.json`, and the weights under their public names; each file atomically.

    Args:
      folder: created if it does not exist.
      config: the network's config, including `_class_name`.
      params: parameter tree, without an outer "params".
      weights_name: "diffusion_pytorch_model.safetensors", or "model.safetensors" for a transformers part.
      dtype: in which floating-point parameters are stored, one of DTYPES; other parameters keep their dtype.
      buffers: further tensors by their public names, which are no parameters of our networks.

    Raises:
      ValueError: unknown dtype or weights_name, or a finite parameter that is too large for dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is '{dtype}', but must be one of {', '.join(DTYPES)}")
    if weights_name not in WEIGHTS_NAMES or not weights_name.endswith(".safetensors"):
        names = [name for name in WEIGHTS_NAMES if name.endswith(".safetensors")]
        raise ValueError(f"weights_name is '{weights_name}', but must be one of {', '.join(names)}")
    folder = Path(folder)
    public = {**naming.to_public(params), **(buffers or {})}
    stored = {name: _to_stored_dtype(name, tensor, dtype) for name, tensor in public.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(
        folder / weights_name,
        lambda temporary: safetensors.numpy.save_file(stored, temporary, metadata={"format": "pt"}),
    )
    save_json(folder / CONFIG_NAME, config)


def load_config(folder: str | os.PathLike) -> dict[str, Any]:
    """Read `config.json` of a part.

    Raises:
      ValueError: the folder or the file is missing, or the file is not a JSON object.
    """
    folder = _check_folder(folder)
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{folder} is not a part of a model: it has no {CONFIG_NAME}")
    return load_json(folder / CONFIG_NAME)


def load_tensors(folder: str | os.PathLike) -> Mapping[str, np.ndarray]:
    """Read the weights of a part: public name -> host array in PyTorch's layout and the stored dtype.

    Raises:
      ValueError: the folder is missing, or as `tensors.load_tensors`.
    """
    return tensors.load_tensors(_check_folder(folder))


def load_part(
    folder: str | os.PathLike,
    template: Mapping[str, Any],
    dtype: Any = None,
    prefix: str = "",
    left_out: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Read the weights of a part as the parameter tree of its network.

    Args:
      folder: written by `save_part`, diffusers or transformers.
      template: tree of `jax.ShapeDtypeStruct`, see `naming.from_public`.
      dtype: dtype of the floating-point parameters; None for the template's.
      prefix: read only the tensors whose names begin with it, for a network that is one part of the file.
      left_out: beginnings of names of tensors that are passed over.

    Returns: tree of host arrays; place it on devices with `jax.device_put`.

    Raises:
      ValueError: as `load_tensors`, or the tensors do not fit the template; the message names the folder.
    """
    stored = load_tensors(folder)
    if prefix:
        stored = tensors.Prefixed(stored, prefix)
    if left_out:
        stored = {name: stored[name] for name in stored if not name.startswith(left_out)}
    if dtype is not None:
        template = with_dtype(template, np.dtype(dtype))
    try:
        return naming.from_public(stored, template)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_model_index(folder: str | os.PathLike) -> dict[str, Any]:
    """Read `model_index.json`.

    Raises:
      ValueError: the folder is missing or is not a model folder.
    """
    folder = _check_folder(folder)
    if not (folder / INDEX_NAME).is_file():
        hint = f"; with its {CONFIG_NAME} it looks like one part of a model" if (folder / CONFIG_NAME).is_file() else ""
        raise ValueError(f"{folder} is not a model folder: it has no {INDEX_NAME}{hint}")
    return load_json(folder / INDEX_NAME)


def _check_folder(folder: str | os.PathLike) -> Path:
    folder = Path(folder)
    if not folder.exists():
        raise ValueError(f"the folder {folder} does not exist")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, but must be a model folder")
    return folder


def _is_float(dtype: np.dtype) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def _to_stored_dtype(name: str, tensor: np.ndarray, dtype: str) -> np.ndarray:
    if not _is_float(tensor.dtype):
        return tensor
    with np.errstate(over="ignore"):
        stored = tensor.astype(np.dtype(dtype))
    overflow = np.isfinite(tensor.astype(np.float32)) & ~np.isfinite(stored.astype(np.float32))
    if overflow.any():
        raise ValueError(f"{name} has values too large for {dtype}; store it as bfloat16 or float32")
    return stored


class _Leaf(NamedTuple):
    """Shape and dtype of an array, as `jax.ShapeDtypeStruct` without JAX."""

    shape: tuple[int, ...]
    dtype: np.dtype


def with_dtype(template: Any, dtype: np.dtype) -> Any:
    """A tree of shapes, those of floating-point numbers with another dtype."""
    if isinstance(template, Mapping):
        return {name: with_dtype(value, dtype) for name, value in template.items()}
    return _Leaf(template.shape, dtype) if _is_float(template.dtype) else template
