"""Where a model is: what can be known of it before anything is loaded. Importing this module imports no JAX."""

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from videogen_jax.weights.animatediff import read_animatediff
from videogen_jax.weights.hub import EMBEDDED, resolve
from videogen_jax.weights.model_index import ModelIndex
from videogen_jax.weights.public_video import read_index

if TYPE_CHECKING:
    from videogen_jax.sampling.exported import StoredPrograms

# Arguments of `ModelSource.find`, fields of a sampling config, and kept in recipes.
COMPONENTS = ("upper_model", "motion_adapter", "motion_norm", "sparse_control")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """Where a model is: found, its index read, nothing loaded yet.

    Attributes:
      name: what recipes call the model: the folder or hub id by which it can be found again.
      index: its index; with `reference_folder` where another model draws the reference images.
      components: what it is put together with besides a reference model: values of some of COMPONENTS, by name.
      exported: its programs, where they have been exported.
    """

    name: str
    index: ModelIndex
    components: Mapping[str, str] = dataclasses.field(default_factory=dict)
    exported: "StoredPrograms | None" = None

    @classmethod
    def find(
        cls,
        model: str | os.PathLike | None = None,
        reference_model: str | os.PathLike | None = None,
        exported: str | os.PathLike | None = None,
        upper_model: str | os.PathLike | None = None,
        motion_adapter: str | os.PathLike | None = None,
        motion_norm: str | None = None,
        sparse_control: str | os.PathLike | None = None,
    ) -> Self:
        """Find a model.

        Args:
          model: a folder, a hub id, or nothing: the embedded model.
          reference_model: a folder or hub id in diffusers' layout (Stable Diffusion 1.x, 2.x or XL) that draws the
            reference images instead of the model's own `unet`, with its own text encoder, autoencoder and picture size.
          upper_model: a folder or hub id of a model like ZeroScope XL, which makes the videos of `model` larger.
          motion_adapter: AnimateDiff's, which makes a video model of Stable Diffusion: see
            `weights.animatediff.MotionAdapter.find`.
          motion_norm: "frame" or "video": what the motion modules normalise; None: "frame", as they were trained.
          sparse_control: a folder or hub id of SparseCtrl's network for RGB images, with a motion_adapter: a reference
            image at chosen frames.
          exported: a folder that `videogen_jax.export_sampler` wrote, whose programs need no tracing.

        Raises:
          ValueError: a folder is missing or of another kind, or the hub has no such model.
        """
        stored = None
        if exported:
            from videogen_jax.sampling.exported import StoredPrograms

            stored = StoredPrograms.read(exported)
        name = str(model or EMBEDDED)
        if motion_adapter:
            index = read_animatediff(resolve(name), motion_adapter, motion_norm, sparse_control)
        elif motion_norm or sparse_control:
            given = f"motion_norm is {motion_norm!r}" if motion_norm else f"sparse_control is {str(sparse_control)!r}"
            raise ValueError(f"{given}, but there is no motion_adapter")
        else:
            index = read_index(resolve(name))
        if reference_model:
            from videogen_jax.sampling.text_to_image import TextToImage

            folder = resolve(reference_model)
            index = index.with_reference_model(folder, TextToImage.default_settings(folder))
        given = (upper_model, motion_adapter, motion_norm, sparse_control)
        components = {name: str(value) for name, value in zip(COMPONENTS, given, strict=True) if value}
        if upper_model:
            index = index.with_upper_model(resolve(upper_model))
        return cls(name, index, components, stored)
