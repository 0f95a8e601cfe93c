"""Text to video: a model that is called with prompts."""

import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from videogen_jax.runtime.executables import Executables
from videogen_jax.sampling.generate import ArrayExecutor, Callback, Inputs, ShapeExecutor, fit_references, generate
from videogen_jax.sampling.model import VideoGenModel
from videogen_jax.sampling.programs import Programs
from videogen_jax.sampling.recipe import Recipe, array_digest, software
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.sampling.source import ModelSource
from videogen_jax.weights.model_index import REFERENCE
from videogen_jax.weights.tokenizer import known_words, tokenize, unknown_words


@dataclasses.dataclass(frozen=True, eq=False)
class VideoGenOutput:
    """The videos of B prompts.

    Attributes:
      frames: uint8 `(B, T, H, W, 3)`, sRGB.
      reference: the reference images, drawn or given, uint8 `(B, H, W, 3)`; of a model that reads none, the videos'
        first frames.
      fps: frames a second at which the video is to be played.
      recipes: what each video was made from.
    """

    frames: np.ndarray
    reference: np.ndarray
    fps: float
    recipes: tuple[Recipe, ...]


@dataclasses.dataclass(eq=False, repr=False)
class VideoGenPipeline(VideoGenModel):
    """A model that is called with prompts. Made by `from_pretrained`. Not to be called from two threads at once.

    Its programs are each compiled once for the batch, the size, the sampler and the temporal factor. One sampling step
    is a program, so that the host is notified after each and can stop. Prompts, seeds, guidance scales, noise level,
    reference images and the number of steps are arguments of the programs. They are traced in a thread of their own, so
    JAX's context managers around a call do not reach them: set such options in `jax.config`.
    """

    programs: Programs = dataclasses.field(default_factory=Programs)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike | None = None,
        *,
        reference_model: str | os.PathLike | None = None,
        dtype: str | None = None,
        exported: str | os.PathLike | None = None,
        **components: str | os.PathLike | None,
    ) -> Self:
        """Load a model.

        Args:
          model, reference_model, exported: see `ModelSource.find`.
          **components: upper_model, motion_adapter, motion_norm, sparse_control: see there.
          dtype: see `VideoGenModel.load`.

        Raises:
          ValueError: the model cannot be found or loaded, or the exported programs are of another model, dtype,
            platform or version.
        """
        return cls.load(ModelSource.find(model, reference_model, exported, **components), dtype)

    @classmethod
    def load(cls, source: ModelSource, dtype: str | None = None, cache: Path | None = None) -> Self:
        """Load a model that has been found: see `VideoGenModel.load` and `from_pretrained`.

        Args:
          source, dtype: see there.
          cache: the folder in which executables are kept for later processes, from `executables.keep_executables`;
            None: nowhere.
        """
        pipeline = super().load(source, dtype)
        if source.exported is not None:
            source.exported.check(pipeline.fingerprint, pipeline.dtype)
        if source.exported is not None or cache is not None:
            model = f"{pipeline.fingerprint} {pipeline.dtype} {sorted(pipeline.components.items())}"
            executables = None if cache is None else Executables(cache, model)
            pipeline.programs = Programs(store=source.exported, executables=executables)
        return pipeline

    def __call__(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        callback: Callback | None = None,
        previews: bool = False,
        **settings: Any,
    ) -> VideoGenOutput:
        """Make one video of each prompt.

        Args:
          prompts: one sentence, or B of them; None where references are given to a model that reads no text.
          callback, previews: see `sample`.
          **settings: fields of `SamplingRequest` (seed, reference, size, num_frames, fps, ...), and of `StageSettings`
            (guidance_scale, steps, ...), these each a value for all stages or a mapping from the names of stages. What
            is left out is as the model's index says.

        Raises:
          TypeError: an unknown setting.
          ValueError: for anything that cannot work, before any program is compiled.
        """
        return self.sample(SamplingRequest.from_keywords(prompts, **settings), callback, previews)

    def sample(
        self,
        request: SamplingRequest,
        callback: Callback | None = None,
        previews: bool = False,
        inputs: Inputs | None = None,
    ) -> VideoGenOutput:
        """Make the videos of a request.

        Args:
          request: one batch.
          callback: called, between any two steps, with (stage, step, of, preview): steps done of all of the stage, and
            images worth showing, uint8 `(B, H, W, 3)` or `(B, n, H, W, 3)`, or None. The stages are "text",
            "reference", those of the cascade, "temporal" and "decode", which hands over each piece of the video that is
            done. While a program is still being compiled it is called again with the same arguments a few times a
            second. What it raises ends the call.
          previews: also hand over, at the end of each stage of the cascade and of "temporal", the video so far, decoded
            frame by frame with the image decoder.
          inputs: `self.inputs(request)`, where it has been worked out.

        Raises:
          ValueError: for anything that cannot work, before any program is compiled.
        """
        request = request.resolve(self.index)
        inputs = self.inputs(request) if inputs is None else inputs

        def walk(prepare) -> None:
            generate(self, request, inputs, ShapeExecutor(prepare), previews)

        with self.programs.prepared_by(walk):
            images, frames = generate(self, request, inputs, ArrayExecutor(self.programs, callback), previews)
        count = len(request.prompts)
        recipes = tuple(self._recipe(request, inputs, slot) for slot in range(count))
        images = frames[:, 0] if images is None else images
        return VideoGenOutput(frames[:count], images[:count], request.fps, recipes)

    def batches(self, request: SamplingRequest) -> Iterator[tuple[SamplingRequest, Inputs]]:
        """Cut a request of any number of prompts into batches of `request.batch_size`, each with its arrays.

        All prompts are checked and tokenized at once, before the first batch.

        Raises:
          ValueError: for anything that cannot work.
        """
        whole = dataclasses.replace(request, batch_size=None).resolve(self.index)
        size = min(request.batch_size or len(whole.prompts), len(whole.prompts))
        inputs = self.inputs(whole)
        for first in range(0, len(whole.prompts), size):
            part = slice(first, first + size)
            reference = None if inputs.images is None else inputs.images[part]
            noise = {name: array[part] for name, array in inputs.noise.items()} or None
            fields = {
                "prompts": whole.prompts[part],
                "seed": whole.seed[part],
                "reference": reference,
                "latents": noise,
            }
            batch = dataclasses.replace(whole, **fields, batch_size=size)
            fill = first + np.arange(size) % len(batch.prompts)
            images = None if inputs.images is None else inputs.images[fill]
            tokens = tuple(ids[[*fill, -1]] for ids in inputs.tokens)
            noise = {name: array[fill] for name, array in inputs.noise.items()}
            yield batch, Inputs(tokens, inputs.seeds[fill], images, noise)

    def inputs(self, request: SamplingRequest) -> Inputs:
        """The arrays of a resolved request.

        Warns of words that the model's vocabulary was not trained on, and of prompts that are too long.

        Raises:
          ValueError: reference images of another type or number, noise of another shape, or a sampler that does not fit
            its stage.
        """
        prompts, count = list(request.prompts), len(request.prompts)
        images = None if request.reference is None else fit_references(request.reference, count, request.size)
        drawn = images is None and self.index.reads_reference
        stages = {REFERENCE: self.reference.stage} if drawn else {}
        for name, stage in {**stages, **dict(zip(self.index.cascade, self.cascade, strict=True))}.items():
            stage.step_coeffs(request.stages[name])  # raises what a sampler has against its schedule
        fill = np.arange(request.batch_size) % count
        tokens = tuple(ids[[*fill, count]] for ids in self._tokens(prompts, drawn))
        noise = {name: array[fill] for name, array in self._noise(request).items()}
        seeds = np.asarray(request.seed, np.uint32)[fill]
        return Inputs(tokens, seeds, None if images is None else images[fill], noise)

    def _tokens(self, prompts: list[str], drawn: bool) -> list[np.ndarray]:
        """Tokens of the prompts and the empty prompt for each text encoder that reads them, `(count + 1, L)`."""
        if self.text is None:
            read = drawn or self.index.reads_text
            if not read and any(prompts):
                warnings.warn("the model reads no prompt: the video follows from the reference image", stacklevel=4)
            return list(self.reference.tokenize(prompts)) if read else []
        unknown = dict.fromkeys(word for prompt in prompts for word in unknown_words(self.text.tokenizer, prompt))
        if unknown:
            warnings.warn(
                f"the model does not know {', '.join(map(repr, unknown))}; the words it knows are "
                f"{', '.join(self.known_words)}",
                stacklevel=4,
            )
        tokens = [tokenize(self.text.tokenizer, [*prompts, ""])]
        if drawn and not self.shares_text:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of long prompts there has been a warning
                tokens += self.reference.tokenize(prompts)
        return tokens

    def _noise(self, request: SamplingRequest) -> dict[str, np.ndarray]:
        """The noise that a request gives, checked, by the name of its stage."""
        if request.latents is None:
            return {}
        names = self.index.cascade
        if not isinstance(request.latents, Mapping) and len(names) > 1:
            raise ValueError(f"latents must be a mapping from stages, which are {', '.join(names)}")
        given = request.latents if isinstance(request.latents, Mapping) else {names[0]: request.latents}
        noise = {}
        for name, array in given.items():
            if name not in names:
                raise ValueError(f"latents names the stage {name!r}, but the stages are {', '.join(names)}")
            frames = self.index.base_frames(request.num_frames, request.temporal_factor)
            shape = self.noise_shape(names.index(name), len(request.prompts), frames, request.size)
            noise[name] = np.asarray(array, np.float32)
            if noise[name].shape != shape:
                raise ValueError(f"latents of {name} are {noise[name].shape}, but must be {shape}")
        return noise

    @property
    def known_words(self) -> list[str]:
        """The words that the vocabulary was trained on, sorted; empty where it was learned from open text."""
        return [] if self.text is None else known_words(self.text.tokenizer)

    def _recipe(self, request: SamplingRequest, inputs: Inputs, slot: int) -> Recipe:
        """What the video in a slot of the batch is made from."""
        drawn = inputs.images is None
        sampled = drawn and self.index.reads_reference
        stages = {name: settings for name, settings in request.stages.items() if sampled or name != REFERENCE}
        prompts, seed = request.prompts[slot : slot + 1], request.seed[slot : slot + 1]
        return Recipe(
            request=dataclasses.replace(
                request, prompts=prompts, seed=seed, reference=None, latents=None, stages=stages
            ),
            reference=None if drawn else array_digest(inputs.images[slot]),
            model=self.name,
            fingerprint=self.fingerprint,
            reference_model=None if self.index.reference_folder is None else str(self.index.reference_folder),
            slot=slot,
            dtype=self.dtype,
            software=software(),
            components=dict(self.components) or None,
            noise={name: array_digest(array[slot]) for name, array in inputs.noise.items()} or None,
        )
