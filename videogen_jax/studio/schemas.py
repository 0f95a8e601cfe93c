"""The JSON of requests and responses, from which the documentation of the HTTP interface is generated."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HEX_ID = r"^[0-9a-f]{16}$"
Id = Annotated[str, Field(pattern=HEX_ID, examples=["5f0c3e9a1b2d4c68"])]
_SOME = "A field of some public models only."
_EXAMPLE = "a small red circle moving right slowly on a gray background"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ReferenceBody(_Body):
    """The image that the video starts from: an upload, or a frame of a result."""

    upload: Id | None = Field(None, description="Id of an uploaded image.")
    result: Id | None = Field(None, description="Id of a result, one of whose frames is used.")
    frame: int | None = Field(None, ge=0, le=100_000, description="Number of the frame of `result`, from 0.")


class JobBody(_Body):
    """A request for a video. A field that is null or left out takes the value of the model's index."""

    prompt: str = Field(
        "",
        description="What the video shows; may be empty for a model that reads none, with a reference.",
        examples=[_EXAMPLE],
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of the random numbers; null: a random one.", examples=[3]
    )
    frames: int | None = Field(None, ge=1, le=100_000, description="Frames of the video.", examples=[31])
    fps: float | None = Field(None, gt=0, description="Frames per second of the video.", examples=[15.0])
    guidance_scale: float | None = Field(None, ge=0, description="Weight of the text, in all stages.")
    reference_guidance_scale: float | None = Field(None, ge=0, description="Weight of the reference image.")
    steps: int | None = Field(None, ge=1, le=100_000, description="Sampling steps of every stage.")
    min_guidance_scale: float | None = Field(None, description="Guidance of the first frame. " + _SOME)
    motion_bucket_id: int | None = Field(None, description="How much motion there is to be. " + _SOME)
    noise_aug_strength: float | None = Field(None, description="Noise on the reference image. " + _SOME)
    conditioning_fps: float | None = Field(None, description="Frame rate that the network is given. " + _SOME)
    motion_scale: int | None = Field(None, description="How much motion there is to be, and of what kind. " + _SOME)
    strength: float | None = Field(None, description="How far the upper model may go from the lower video. " + _SOME)
    reference: ReferenceBody | None = Field(None, description="Animate this image instead of drawing one.")


class PromptBody(_Body):
    prompt: str = Field(examples=["a small red circel moving right"])


class PinBody(_Body):
    pinned: bool = Field(description="Whether to keep the result when the gallery is full.")


class Problem(BaseModel):
    error: str = Field(description="One sentence: what is wrong, by the name of its field, and what would be right.")


class Health(BaseModel):
    status: Literal["loading", "warming up", "ready", "failed"]
    detail: str = Field(description="What the server is doing, or what went wrong; empty when ready.")


class PromptChecked(BaseModel):
    unknown: list[str] = Field(description="Words that the model does not know; none for a model that takes any text.")
    suggestions: dict[str, list[str]] = Field(description="For each of them, known words of similar spelling.")


class Defaults(BaseModel):
    """The model's own values; null where stages differ, and of settings that it does not have."""

    frames: int
    fps: float
    guidance_scale: float | None
    reference_guidance_scale: float | None = None
    steps: int | None
    min_guidance_scale: float | None = None
    motion_bucket_id: float | None = None
    noise_aug_strength: float | None = None
    conditioning_fps: float | None = None
    motion_scale: float | None = None
    strength: float | None = None


class Bounds(BaseModel):
    """The smallest and the largest value of the fields of a job, and other limits; null: not of this model."""

    prompt: tuple[int, int] = Field(description="Characters.")
    seed: tuple[int, int]
    frames: tuple[int, int]
    fps: tuple[float, float]
    guidance_scale: tuple[float, float]
    reference_guidance_scale: tuple[float, float] | None = None
    steps: tuple[int, int]
    min_guidance_scale: tuple[float, float] | None = None
    motion_bucket_id: tuple[int, int] | None = None
    noise_aug_strength: tuple[float, float] | None = None
    conditioning_fps: tuple[float, float] | None = None
    motion_scale: tuple[int, int] | None = None
    strength: tuple[float, float] | None = None
    queued: int = Field(description="Jobs that may wait, of all clients together.")
    queued_per_client: int
    upload_bytes: int
    upload_pixels: int
    upload_seconds: float = Field(description="How long an upload is kept.")
    results: int = Field(description="Results that the gallery stores.")


class ModelView(BaseModel):
    """The model that is served. Fields that are not known until it is loaded are null until then."""

    name: str
    version: str = Field(description="Version of videogen_jax.")
    fingerprint: str | None = Field(description="SHA-256 of the contents of the model folder.")
    status: Literal["loading", "warming up", "ready", "failed"]
    detail: str
    resolution: int | None = Field(description="Side of the frames in pixels.")
    base_frames: int | None = Field(description="Frames of the cascade, before temporal upsampling.")
    min_frames: int | None
    max_frames: int | None
    fps: float | None = Field(description="Frames per second of the cascade's clips.")
    temporal_factors: list[int] | None
    stages: list[str] | None = Field(description="Names of all stages in order.")
    words: list[str] | None = Field(description="The words that the model knows; empty if it takes any text.")
    reads_text: bool | None = Field(description="Whether its videos depend on the prompt.")
    reads_reference: bool | None = Field(description="Whether its videos start from a reference image.")
    draws_reference: bool | None = Field(description="Whether it can draw a reference image of its own.")
    defaults: Defaults | None
    stage_defaults: dict[str, dict[str, Any]] | None = Field(description="The model's own settings of each stage.")
    limits: Bounds | None
    examples: list[str] | None


class StageView(BaseModel):
    name: str
    step: int
    of: int
    state: Literal["waiting", "running", "done"]
    preview: str | None = Field(description="URL of its output so far; a new one for each new preview.")


class JobView(BaseModel):
    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    prompt: str
    seed: int
    settings: dict[str, Any] = Field(description="Frames, fps, scales, steps and reference as requested.")
    position: int | None = Field(description="Jobs ahead while it waits, including the running one.")
    stage: str | None = Field(description="Name of the running stage.")
    step: int
    of: int
    stages: list[StageView]
    unknown_words: list[str]
    result: str | None = Field(description="Id of the result, when done.")
    reason: str | None = Field(description="Why it failed.")
    created: float = Field(description="Seconds since 1970.")
    started: float | None
    finished: float | None
    eta_seconds: float | None = Field(description="Seconds left, if it takes as long as earlier jobs.")


class JobList(BaseModel):
    jobs: list[JobView]


class UploadView(BaseModel):
    id: str
    width: int
    height: int
    url: str


class ResultView(BaseModel):
    id: str
    created: float = Field(description="Seconds since 1970.")
    prompt: str
    seed: int
    recipe: dict[str, Any] = Field(description="Everything that determines the video.")
    frames: int
    fps: float
    width: int
    height: int
    pinned: bool
    video: str
    gif: str
    sheet: str
    reference: str
    poster: str


class ResultList(BaseModel):
    results: list[ResultView]
    next: str | None = Field(description="The value of `before` for the next page; null at the end.")
