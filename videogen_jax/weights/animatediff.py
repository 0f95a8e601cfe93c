"""AnimateDiff (Guo et al. 2024, arXiv 2307.04725) and PIA (Zhang et al. 2024, arXiv 2312.13964): a motion adapter makes
a video model of a Stable Diffusion folder. Nothing here needs JAX."""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from videogen_jax.weights.folder import CONFIG_NAME, INDEX_NAME, load_config, read_model_index
from videogen_jax.weights.hub import resolve
from videogen_jax.weights.model_index import REFERENCE, UNET, VAE, Size, levels_of
from videogen_jax.weights.public_video import VIDEO, PublicVideoIndex
from videogen_jax.weights.scheduler_config import Scheduler, load_scheduler
from videogen_jax.weights.tensors import StoredTensors, load_tensors

MOTION_NORMS = ("frame", "video")
_CLASS = "MotionAdapter"
_IMAGE_MODELS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_DEFAULTS = {  # diffusers'
    "block_out_channels": [320, 640, 1280, 1280],
    "motion_layers_per_block": 2,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
    "conv_in_channels": None,
}
_FIXED = {
    "motion_transformer_layers_per_block": 1,
    "motion_mid_block_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
    "motion_num_attention_heads": 8,
    "motion_norm_num_groups": 32,
}
_LIGHTNING = re.compile(r"animatediff_lightning_(\d+)step")


@dataclasses.dataclass(frozen=True)
class MotionAdapter:
    """A motion adapter's files.

    Attributes:
      path: its folder, or one file of weights, which has no config.
      config: the fields of diffusers' `MotionAdapter`; None where the weights alone say it.
    """

    path: Path
    config: Mapping[str, Any] = dataclasses.field(hash=False)

    @classmethod
    def find(cls, name: str | os.PathLike) -> "MotionAdapter":
        """Find an adapter and check its config.

        Args:
          name: a folder as diffusers writes it, a hub id, a safetensors file, or a hub id and a file of that repository
            after a colon. Without a config its fields are those that the weights have.

        Raises:
          ValueError: it is missing, of another kind, or has a field that is not supported.
        """
        repository, _, file = ("", "", "") if Path(name).exists() else str(name).partition(":")
        path = resolve(repository, file) / file if file else resolve(name)
        if path.is_file():
            return cls(path, _config_of(path))
        config = load_config(path)
        if config.get("_class_name") != _CLASS:
            raise ValueError(f"{path / CONFIG_NAME} describes a {config.get('_class_name')}, but a {_CLASS} is needed")
        for field, value in config.items():
            if field in _FIXED and value != _FIXED[field]:
                raise ValueError(f"{path / CONFIG_NAME}: {field} is {value!r}; only {_FIXED[field]!r} is supported")
            if field not in _FIXED and field not in _DEFAULTS and not field.startswith("_"):
                raise ValueError(f"{path / CONFIG_NAME}: the field {field} ({value!r}) is not supported")
        return cls(path, {**_DEFAULTS, **{name: config[name] for name in _DEFAULTS if name in config}})

    @property
    def tensors(self) -> Mapping[str, Any]:
        """Its tensors by public name, read on access. ValueError: there are none, or they are pickled."""
        return StoredTensors([self.path]) if self.path.is_file() else load_tensors(self.path)

    @property
    def steps(self) -> int | None:
        """The sampling steps that AnimateDiff-Lightning's file is for, from its name; None: any number."""
        match = _LIGHTNING.search(self.path.name)
        return int(match[1]) if match else None

    @property
    def reads_reference(self) -> bool:
        """Whether the UNet takes a reference image besides: PIA's."""
        return self.config["conv_in_channels"] is not None


def _config_of(path: Path) -> dict[str, Any]:
    """The fields of an adapter of which there are the weights alone."""
    if path.suffix != ".safetensors":
        raise ValueError(f"motion_adapter {path} is no safetensors file; pickles are not opened")
    tensors = StoredTensors([path])
    tables = [tensors[name].shape[1] for name in tensors if name.endswith("pos_embed.pe")]
    conv_in = tensors["conv_in.weight"].shape[1] if "conv_in.weight" in tensors else None
    return {
        "block_out_channels": None,
        "motion_layers_per_block": None,
        "motion_max_seq_length": min(tables, default=_DEFAULTS["motion_max_seq_length"]),
        "use_motion_mid_block": any(name.startswith("mid_block.") for name in tensors),
        "conv_in_channels": conv_in,
    }


@dataclasses.dataclass(frozen=True)
class AnimateDiffIndex(PublicVideoIndex):
    """A Stable Diffusion folder with a motion adapter. It reads no reference image.

    Attributes:
      adapter: the motion adapter.
      motion_norm: "frame" or "video", see `models.temporal_kinds.MotionModules`.
    """

    adapter: MotionAdapter | None = None
    motion_norm: str = "frame"

    class_name: ClassVar[str] = "StableDiffusionPipeline"
    parts: ClassVar[tuple[str, ...]] = (UNET, VAE, "text_encoder", "tokenizer", "scheduler")
    reads_reference: ClassVar[bool] = False

    @property
    def most_frames(self) -> int:
        """As many as the adapter has positions."""
        return self.adapter.config["motion_max_seq_length"]

    @property
    def folders(self) -> tuple[Path, ...]:
        return (*super().folders, self.adapter.path)

    @functools.cached_property
    def size(self) -> Size:
        """(height, width): the image model's."""
        side = load_config(self.folder / UNET).get("sample_size") or 64
        pixels = side * 2 ** (levels_of(self.folder / VAE, load_config(self.folder / VAE)) - 1)
        return pixels, pixels

    @property
    def scheduler(self) -> Scheduler:
        """How the video is sampled: the noise schedule is linear, as the adapters were trained.

        The steps are the authors'. With those of "linspace", which diffusers' documentation has, its DDIM goes on to
        other timesteps than those at which it calls the network next.
        """
        images = load_scheduler(self.folder)
        euler = self.adapter.steps is not None
        return dataclasses.replace(
            images,
            schedule={**images.schedule, "name": "linear"},
            sampler="euler" if euler else "ddim",
            timestep_spacing="trailing" if euler else "leading",
            steps_offset=1,
            set_alpha_to_one=euler or images.set_alpha_to_one,
        )


@dataclasses.dataclass(frozen=True)
class PIAIndex(AnimateDiffIndex):
    """A Stable Diffusion folder with PIA's adapter, which animates a reference image; the folder itself can draw it."""

    own_settings: ClassVar[tuple[str, ...]] = ("motion_scale",)
    reads_reference: ClassVar[bool] = True

    @property
    def draws_reference(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class SparseControlIndex(PIAIndex):
    """A Stable Diffusion folder with AnimateDiff's adapter and SparseCtrl, which takes a reference image at any frames.

    Attributes:
      control: the folder of SparseCtrl's network.
    """

    control: Path | None = None

    own_settings: ClassVar[tuple[str, ...]] = ("reference_frames",)

    @property
    def folders(self) -> tuple[Path, ...]:
        return (*super().folders, self.control)


def read_animatediff(
    folder: str | os.PathLike,
    motion_adapter: str | os.PathLike,
    motion_norm: str | None = None,
    sparse_control: str | os.PathLike | None = None,
) -> AnimateDiffIndex:
    """Put a Stable Diffusion folder and a motion adapter together.

    Args:
      folder: of Stable Diffusion 1.x, 2.x or XL.
      motion_adapter: see `MotionAdapter.find`.
      motion_norm: one of MOTION_NORMS; None: "frame".
      sparse_control: a folder or hub id of SparseCtrl's network for RGB images.

    Raises:
      ValueError: either is missing or of another kind, or they do not fit each other.
    """
    folder, motion_norm = Path(folder), motion_norm or "frame"
    if motion_norm not in MOTION_NORMS:
        raise ValueError(f"motion_norm is {motion_norm!r}, but must be {' or '.join(MOTION_NORMS)}")
    name = read_model_index(folder).get("_class_name")
    if name not in _IMAGE_MODELS:
        raise ValueError(
            f"{folder / INDEX_NAME} describes a {name}, but a motion_adapter goes with {' or '.join(_IMAGE_MODELS)}"
        )
    adapter = MotionAdapter.find(motion_adapter)
    kind = PIAIndex if adapter.reads_reference else AnimateDiffIndex
    kind.check_parts(folder)
    unet = load_config(folder / UNET)
    for own, its in (("block_out_channels", "block_out_channels"), ("motion_layers_per_block", "layers_per_block")):
        wanted = unet.get(its, _DEFAULTS[own])
        if adapter.config[own] not in (wanted, None):
            raise ValueError(
                f"motion_adapter {adapter.path} is for a UNet whose {its} is {adapter.config[own]}, but that of "
                f"{folder / UNET} is {wanted}"
            )
    is_xl = name == _IMAGE_MODELS[1]
    settings: dict[str, Any] = {"steps": 25, "sampler": "ddim", "guidance_scale": 8.0 if is_xl else 7.5}
    if adapter.steps is not None:
        settings = {"steps": adapter.steps, "sampler": "euler", "guidance_scale": 1.0}
    sampling = {VIDEO: settings, "decode_chunk": 8, "decode_overlap": 0}
    fields = {"adapter": adapter, "motion_norm": motion_norm}
    if sparse_control:
        if adapter.reads_reference or is_xl:
            raise ValueError("sparse_control goes with AnimateDiff on Stable Diffusion 1.x: not with PIA, nor with XL")
        kind, fields["control"] = SparseControlIndex, resolve(sparse_control)
        settings["reference_frames"] = (0,)
        load_config(fields["control"])  # is there
    if adapter.reads_reference:
        settings["motion_scale"] = 1
    if kind.reads_reference:
        images = load_scheduler(folder).sampler
        sampling[REFERENCE] = {"sampler": images, "steps": 30, "guidance_scale": 5.0 if is_xl else 7.5}
    frames = min(16, adapter.config["motion_max_seq_length"])
    return kind(folder, (VIDEO,), frames, fps=8.0, sampling=sampling, **fields)
