"""Conversion between linen parameter trees and the tensor names and layouts of public (PyTorch) checkpoints.

The modules of this package have the names of the public checkpoints, with list indices appended by an underscore:
`down_blocks.0.resnets.1.conv1.weight` is `params["down_blocks_0"]["resnets_1"]["conv1"]["kernel"]`. Only the last name
of each leaf and the order of its axes are translated:

    linen                        public
    kernel (in, out)             weight (out, in)              dense
    kernel (W, in, out)          weight (out, in, W)           1D convolution
    kernel (H, W, in, out)       weight (out, in, H, W)        2D convolution
    kernel (D, H, W, in, out)    weight (out, in, D, H, W)     3D convolution
    scale                        weight                        normalisation
    embedding                    weight                        embedding table
    bias                         bias
    anything else                same name and layout          e.g. `time_mixer.mix_factor`

Reading is driven by a template, the tree of shapes of the network: the public name of each leaf is computed from its
path, so public names never have to be parsed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np

# `linear_1` and `linear_2` of a timestep embedding are names, not entries of a list called `linear`.
_NAMES_WITH_DIGITS = frozenset({"linear"})
# Stable Video Diffusion and Stable Diffusion XL have different layers of one name.
_PUBLIC_MODULES = {"added_numbers_embedding": "add_embedding"}
_INDEXED = re.compile(r"(?P<name>.*[^_\d])_(?P<index>\d+)")
_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
# The autoencoders of Stable Diffusion 1 and 2 were published with older names of the attention layers.
_ATTENTION_ALIASES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_ATTENTION_LAYER = re.compile(r"(?P<head>.*\.)(?P<layer>to_q|to_k|to_v|to_out\.0)\.(?P<leaf>weight|bias)")
# The text encoder's tensors have this prefix up to transformers 4, and no prefix from 5 on.
_OPTIONAL_PREFIX = "text_model."
# Buffers of older checkpoints, which hold no learned values.
_BUFFERS = re.compile(r"(.*\.)?(position_ids|num_batches_tracked)")
# AnimateDiff's tables of positions `(1, frames, channels)`, which the network computes.
_POSITION_TABLE = re.compile(r"(.*\.)?pos_embed\.pe")
_POSITION_TOLERANCE = 5e-3  # bfloat16 rounds by up to 2e-3
_MAX_NAMES = 5  # tensors named in each part of an error message
_BLOCK = 64  # rows that are transposed at once


def public_name(path: tuple[str, ...]) -> str:
    """Return the public name of a leaf of a linen tree, e.g. ("to_out_0", "kernel") -> "to_out.0.weight"."""
    *modules, leaf = path
    names = []
    for module in modules:
        module = _PUBLIC_MODULES.get(module, module)
        match = _INDEXED.fullmatch(module)
        if match and match["name"] not in _NAMES_WITH_DIGITS:
            module = f"{match['name']}.{match['index']}"
        names.append(module)
    return ".".join([*names, _LEAF_NAMES.get(leaf, leaf)])


def to_public(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert a parameter tree to the names and layouts of public checkpoints.

    Args:
      params: nested mapping of arrays, without an outer "params".

    Returns: public name -> contiguous host array in PyTorch's layout, dtype unchanged.

    Raises:
      ValueError: two leaves have the same public name, or a kernel has a rank that no layer has.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in _leaves(params):
        name = public_name(path)
        if name in tensors:
            raise ValueError(f"two parameters have the public name '{name}', the second is {'/'.join(path)}")
        array = np.asarray(leaf)
        tensors[name] = np.asarray(array.transpose(_axes_to_public(path, array.ndim)), order="C")
    return tensors


def from_public(
    tensors: Mapping[str, np.ndarray], template: Mapping[str, Any], max_frames: int | None = None
) -> dict[str, Any]:
    """Build the parameter tree of a network from the tensors of a public checkpoint.

    Args:
      tensors: public name -> array in PyTorch's layout, of any dtype. The older names of attention layers (`query`,
        `key`, `value`, `proj_attn`) are accepted, as is a text encoder with or without the prefix `text_model.`;
        buffers without learned values (`position_ids`) are ignored, and AnimateDiff's tables of positions
        (`pos_embed.pe`) compared with what the network computes.
      template: nested mapping of `jax.ShapeDtypeStruct` (or arrays), as from `jax.eval_shape` of `init`, without an
        outer "params".
      max_frames: the length that tables of positions must have; None: any.

    Returns: nested dicts like the template, of host arrays in its shapes and dtypes; place them on devices with
    `jax.device_put`.

    Raises:
      ValueError: tensors are missing, surplus or of another shape, or a table of positions holds other values than the
        formula's; the message names the first of each and counts all.
    """
    params: dict[str, Any] = {}
    missing, misshapen, used = [], [], set()
    for path, leaf in _leaves(template):
        name = public_name(path)
        axes = _axes_to_public(path, len(leaf.shape))
        expected = tuple(leaf.shape[axis] for axis in axes)
        found = next((candidate for candidate in _candidates(name) if candidate in tensors), None)
        if found is None:
            missing.append(f"{name} {expected}")
            continue
        used.add(found)
        tensor = np.asarray(tensors[found])
        if tensor.shape != expected:
            misshapen.append(f"{found} is {tensor.shape}, not {expected}")
            continue
        node = params
        for module in path[:-1]:
            node = node.setdefault(module, {})
        node[path[-1]] = _laid_out(tensor, np.argsort(axes), leaf.dtype)
    surplus = [
        f"{name} {tuple(np.shape(tensors[name]))}"
        for name in sorted(set(tensors) - used)
        if not _BUFFERS.fullmatch(name) and not _POSITION_TABLE.fullmatch(name)
    ]
    tables = [name for name in sorted(tensors) if _POSITION_TABLE.fullmatch(name)]
    other_positions = [
        f"{name} {np.shape(tensors[name])}" for name in tables if not _is_position_table(tensors[name], max_frames)
    ]
    complaints = [
        _complaint(kind, found)
        for kind, found in (
            ("missing", missing),
            ("surplus", surplus),
            ("of another shape", misshapen),
            ("with other positions than the network's", other_positions),
        )
        if found
    ]
    if complaints:
        raise ValueError(f"the tensors do not fit the network: {'; '.join(complaints)}")
    return params


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _axes_to_public(path: tuple[str, ...], rank: int) -> tuple[int, ...]:
    """Return the permutation from linen's axes to the public ones; the identity for all leaves except kernels."""
    if path[-1] != "kernel":
        return tuple(range(rank))
    if not 2 <= rank <= 5:
        raise ValueError(f"{'/'.join(path)} has {rank} axes; a kernel has 2 (dense) to 5 (3D convolution)")
    return (rank - 1, rank - 2, *range(rank - 2))


def _laid_out(tensor: np.ndarray, axes: Sequence[int], dtype: Any) -> np.ndarray:
    """Return `tensor.transpose(axes).astype(dtype)` as a contiguous array, in one pass.

    The first axis of the public layout is the last of linen's, so consecutive elements are written far apart.
    Processing that axis in blocks keeps reads and writes local: four times as fast for large kernels.
    """
    result = np.empty([tensor.shape[axis] for axis in axes], dtype)
    if tensor.ndim < 2:
        result[...] = tensor
        return result
    for start in range(0, tensor.shape[0], _BLOCK):
        part = slice(start, start + _BLOCK)
        where = tuple(part if axis == 0 else slice(None) for axis in axes)
        result[where] = tensor[part].transpose(axes)
    return result


def _candidates(name: str) -> Iterator[str]:
    """Yield the names of a tensor in checkpoints of different ages, the current one first."""
    yield name
    match = _ATTENTION_LAYER.fullmatch(name)
    if match:
        yield f"{match['head']}{_ATTENTION_ALIASES[match['layer']]}.{match['leaf']}"
    yield name.removeprefix(_OPTIONAL_PREFIX) if name.startswith(_OPTIONAL_PREFIX) else _OPTIONAL_PREFIX + name


def _is_position_table(table: np.ndarray, max_frames: int | None) -> bool:
    """Whether a table `(1, frames, channels)` has the values of `interleaved_sinusoids` for `max_frames` frames."""
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] % 2 or max_frames not in (None, table.shape[1]):
        return False
    from videogen_jax.models.temporal_layers import interleaved_sinusoids  # here: a request is made without JAX

    expected = interleaved_sinusoids(np.arange(table.shape[1]), table.shape[2])
    return bool(np.abs(table[0].astype(np.float32) - np.asarray(expected)).max() < _POSITION_TOLERANCE)


def position_tables(params: Mapping[str, Any], max_frames: int) -> dict[str, np.ndarray]:
    """AnimateDiff's tables of positions `(1, max_frames, C)` float32, by public name, as its files hold them.

    Args:
      params: of motion modules.
      max_frames: positions in a table.
    """
    from videogen_jax.models.temporal_layers import interleaved_sinusoids

    tables = {}
    for path, leaf in _leaves(params):
        if path[-2:] == ("norm1", "scale"):
            table = interleaved_sinusoids(np.arange(max_frames), leaf.shape[0])
            name = public_name((*path[:-2], "pos_embed", "pe"))
            tables[name] = np.asarray(table, np.float32)[None]
    return tables


def _complaint(kind: str, found: list[str]) -> str:
    ellipsis = "" if len(found) <= _MAX_NAMES else ", ..."
    return f"{len(found)} {kind} ({', '.join(found[:_MAX_NAMES])}{ellipsis})"
