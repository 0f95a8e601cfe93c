"""The model that is served, and its state from before it is loaded until it is ready."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Protocol

from videogen_jax.runtime.version import __version__
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.sampling.source import ModelSource
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.schemas import Bounds, Defaults, ModelView
from videogen_jax.studio.vocabulary import Vocabulary
from videogen_jax.weights.model_index import REFERENCE, ModelIndex

LOADING, WARMING_UP, READY, FAILED = "loading", "warming up", "ready", "failed"
_SHAPES_EXAMPLES = (
    "a small red circle moving right slowly on a gray background",
    "a large blue star growing on a striped gray background",
    "a large yellow triangle moving up left quickly on a navy background",
    "a small green square circling clockwise on a black background",
    "a large purple circle shrinking on a checkered brown background",
    "a small white star moving down slowly on a plain navy background",
)
_GENERAL_EXAMPLES = (
    "a lighthouse on a cliff at dusk, waves breaking below",
    "a red fox trotting through fresh snow",
    "steam rising from a cup of tea by a rainy window",
    "a hot air balloon drifting over green hills in the morning",
    "a goldfish swimming in a round glass bowl",
    "a field of sunflowers swaying in the wind",
)


class Pipeline(Protocol):
    """The part of `videogen_jax.sampling.pipeline.VideoGenPipeline` that the studio uses."""

    name: str
    fingerprint: str
    resolution: int

    def sample(self, request: SamplingRequest, callback: Callable, previews: bool) -> Any: ...


class Source(Protocol):
    """Where a model is read from."""

    name: str

    def read(self) -> ModelIndex:
        """Read the index, which is fast unless it has to be downloaded. Raises ValueError if it is unusable."""

    def vocabulary(self) -> Vocabulary:
        """Read the words that the model knows. Raises ValueError if there is no usable tokenizer."""

    def load(self) -> Pipeline:
        """Load the pipeline. Raises ValueError if its weights are unusable."""


class FolderSource:
    """A model folder or a hub id; the arguments are those of `ModelSource.find`."""

    def __init__(
        self,
        model: str | os.PathLike,
        reference_model: str | os.PathLike | None = None,
        exported: str | os.PathLike | None = None,
        **components: str | None,
    ):
        self.name = str(model)
        self._arguments, self._components = (model, reference_model, exported), components
        self._source: ModelSource | None = None

    def read(self) -> ModelIndex:
        self._source = ModelSource.find(*self._arguments, **self._components)
        return self._source.index

    def vocabulary(self) -> Vocabulary:
        if not self._source.index.reads_text:
            return Vocabulary([], lambda prompt: [])
        from videogen_jax.weights.tokenizer import known_words, load_tokenizer, unknown_words

        # Not the pipeline's own tokenizer, which the worker's thread may be using at the same time.
        tokenizer = load_tokenizer(self._source.index.folder / "tokenizer")
        return Vocabulary(known_words(tokenizer), lambda prompt: unknown_words(tokenizer, prompt))

    def load(self) -> Pipeline:
        from videogen_jax.runtime import compilation_cache, host_memory
        from videogen_jax.runtime.backend import check_backend
        from videogen_jax.runtime.executables import keep_executables
        from videogen_jax.sampling.pipeline import VideoGenPipeline

        check_backend()
        cache = keep_executables(compilation_cache.enable())
        host_memory.keep_freed_memory()
        return VideoGenPipeline.load(self._source, cache=cache)


@dataclasses.dataclass
class Model:
    """The served model. The worker's thread writes its fields and routes read them: each is replaced as a whole.

    Attributes:
      source: where the model is read from.
      status: LOADING, WARMING_UP, READY or FAILED.
      detail: what the worker is doing, or what went wrong.
      index, draws_reference, vocabulary, pipeline, fingerprint, resolution: None until they are known.
    """

    source: Source
    status: str = LOADING
    detail: str = "the model is about to be loaded"
    index: ModelIndex | None = None
    draws_reference: bool | None = None
    vocabulary: Vocabulary | None = None
    pipeline: Pipeline | None = None
    fingerprint: str | None = None
    resolution: int | None = None

    def read(self) -> None:
        """Read the index, if it has not been read.

        Raises:
          ValueError: the folder is not a model folder.
        """
        if self.index is None:
            index = self.source.read()
            self.draws_reference, self.index = index.draws_reference, index

    def prepare(self, warm_up: Callable[[Pipeline], None]) -> None:
        """Load the model and generate a first video, which compiles its programs.

        Args:
          warm_up: generates a video with the pipeline.

        Raises:
          ValueError: the model cannot be loaded; and whatever `warm_up` raises.
        """
        self.detail = "the model's settings are being read"
        self.read()
        self.detail = "the tokenizer is being read"
        self.vocabulary = self.source.vocabulary()
        self.detail = "the weights are being read"
        self.pipeline = pipeline = self.source.load()
        self.fingerprint, self.resolution = pipeline.fingerprint, pipeline.resolution
        self.status, self.detail = WARMING_UP, "a first video is being made, so that all programs are compiled"
        warm_up(pipeline)
        self.status, self.detail = READY, ""

    def fail(self, reason: str) -> None:
        """Record that the model cannot be served."""
        self.status, self.detail = FAILED, reason

    @property
    def examples(self) -> tuple[str, ...]:
        """Example prompts that suit the model; none where nothing reads them."""
        if self.vocabulary is None or not (self.index.reads_text or self.draws_reference):
            return ()
        if not self.vocabulary.words:
            return _GENERAL_EXAMPLES
        return tuple(prompt for prompt in _SHAPES_EXAMPLES if not self.vocabulary.unknown(prompt))

    def stages(self, factor: int, draws_reference: bool) -> list[str]:
        """Return the names of the stages of a video, in the order in which they run.

        Args:
          factor: of temporal upsampling; 1 skips that stage.
          draws_reference: whether the reference image is generated rather than provided.
        """
        reference = [REFERENCE] if draws_reference and self.index.reads_reference else []
        temporal = ["temporal"] if factor > 1 else []
        text = ["text"] if draws_reference or self.index.reads_text else []
        return [*text, *reference, *self.index.cascade, *temporal, "decode"]

    def view(self, limits: Limits) -> ModelView:
        """Return what the HTTP interface reports of the model; fields that are not known yet are null."""
        index, words = self.index, self.vocabulary
        fields = {
            "name": self.source.name,
            "version": __version__,
            "fingerprint": self.fingerprint,
            "status": self.status,
            "detail": self.detail,
            "resolution": self.resolution,
            "words": words and words.words,
            "draws_reference": self.draws_reference,
            "examples": words and list(self.examples),
        }
        if index is None:
            unknown = set(ModelView.model_fields) - set(fields)
            return ModelView(**fields, **dict.fromkeys(unknown))
        settings = {
            name: settings
            for name, settings in index.stage_settings.items()
            if name != REFERENCE or (self.draws_reference and index.reads_reference)
        }
        # Only the stages of the cascade use guidance by the reference.
        takers = {
            name: [
                stage
                for stage in settings
                if name in index.settings_of(stage) and (name != "reference_guidance_scale" or stage != REFERENCE)
            ]
            for name in limits.settings
        }

        def common(name: str) -> Any:
            values = {getattr(settings[stage], name) for stage in takers[name]}
            return values.pop() if len(values) == 1 else None

        factor = index.temporal_factor
        max_frames = (index.most_frames - 1) * max(index.factors) + 1
        return ModelView(
            **fields,
            base_frames=index.num_frames,
            min_frames=2,
            max_frames=max_frames,
            fps=index.fps,
            temporal_factors=list(index.factors),
            reads_text=index.reads_text,
            reads_reference=index.reads_reference,
            stages=self.stages(max(index.factors), self.draws_reference),
            defaults=Defaults(
                frames=(index.num_frames - 1) * factor + 1,
                fps=index.fps * factor,
                **{name: common(name) for name in limits.settings if name != "fps"},
            ),
            stage_defaults={name: stage.to_json() for name, stage in settings.items()},
            limits=Bounds(
                prompt=(1, limits.prompt),
                seed=(0, 2**32 - 1),
                frames=(2, max_frames),
                **{name: ends for name, ends in limits.settings.items() if name == "fps" or takers[name]},
                queued=limits.queued,
                queued_per_client=limits.queued_per_client,
                upload_bytes=limits.upload_bytes,
                upload_pixels=limits.upload_pixels,
                upload_seconds=limits.upload_seconds,
                results=limits.results,
            ),
        )
