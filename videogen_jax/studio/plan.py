"""What a client asks for, checked against the model before it is queued."""

import secrets
import unicodedata

import numpy as np

from videogen_jax.studio.clients import Client
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.jobs import JobRequest
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import FAILED, Model
from videogen_jax.studio.schemas import JobAsked, ReferenceAsked
from videogen_jax.studio.uploads import Uploads

_JOINERS = "\u200c\u200d"  # invisible, but part of how words and signs are written
_SETTINGS = ("guidance_scale", "reference_guidance_scale", "steps")


def plan(
    asked: JobAsked, client: Client, model: Model, gallery: Gallery, uploads: Uploads, limits: Limits
) -> JobRequest:
    """The job that is asked for. To be called off the event loop: it may read a frame of a result.

    Raises:
      Refused: 422 for a field that cannot work, 503 if the model is not known yet or cannot be loaded.
    """
    prompt = check_prompt(asked.prompt, limits)
    if model.status == FAILED:
        raise Refused(503, f"No videos can be made: the model could not be loaded ({model.detail}).")
    index = model.index
    if index is None:
        raise Refused(503, f"The model is not there yet: {model.detail}. Try again soon.", {"Retry-After": "5"})
    for name, (least, most) in (
        ("fps", limits.fps),
        ("guidance_scale", (0, limits.guidance)),
        ("reference_guidance_scale", (0, limits.guidance)),
        ("steps", (1, limits.steps)),
    ):
        value = getattr(asked, name)
        if value is not None and not least <= value <= most:
            raise Refused(422, f"{name} is {value:g}, but must be from {least:g} to {most:g}.")
    try:
        timeline = index.timeline(asked.frames, None, asked.fps)
        settings = index.settings(**{name: getattr(asked, name) for name in _SETTINGS})
    except ValueError as error:
        raise Refused(422, f"{str(error).replace('num_frames', 'frames')}.") from error
    reference = None if asked.reference is None else _reference(asked.reference, client, gallery, uploads)
    if reference is None and not model.draws_reference:
        raise Refused(422, "reference is missing: this model draws none, so an image has to be given.")
    names = model.stages(timeline.factor, reference is None)
    return JobRequest(
        prompt=prompt,
        seed=secrets.randbelow(2**32) if asked.seed is None else asked.seed,
        settings=asked.model_dump(exclude={"prompt", "seed", "reference"})
        | {"reference": asked.reference and asked.reference.model_dump(exclude_none=True)},
        reference=reference,
        stages={name: settings[name].steps if name in settings else 1 for name in names},
        base_fps=index.fps,
        fps=timeline.fps,
        unknown_words=model.vocabulary.unknown(prompt) if model.vocabulary else [],
    )


def check_prompt(prompt: str, limits: Limits) -> str:
    """The prompt with single spaces. Raises Refused (422): it is empty, too long, or holds what cannot be shown."""
    prompt = " ".join(prompt.split())
    for character in prompt:
        # Controls, halves of surrogate pairs, marks that turn the direction of writing, and the like.
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn") and character not in _JOINERS:
            raise Refused(422, f"prompt holds U+{ord(character):04X}, a character that cannot be shown.")
    if all(unicodedata.category(character)[0] in "ZCM" for character in prompt):
        raise Refused(422, "prompt is empty: say what the video should show.")
    if len(prompt) > limits.prompt:
        raise Refused(422, f"prompt has {len(prompt)} characters, but at most {limits.prompt} are taken.")
    return prompt


def _reference(asked: ReferenceAsked, client: Client, gallery: Gallery, uploads: Uploads) -> np.ndarray:
    given = tuple(name for name in ("upload", "result", "frame") if getattr(asked, name) is not None)
    if given == ("upload",):
        upload = uploads.get(client, asked.upload)
        if upload is None:
            raise Refused(422, f"reference.upload: there is no upload {asked.upload}, or no longer: send it again.")
        return upload.image
    if given == ("result", "frame"):
        try:
            return gallery.frame(asked.result, asked.frame)
        except Refused as refused:
            raise Refused(422, f"reference: {refused.sentence}") from refused
    raise Refused(422, "reference must be either upload, or result and frame together.")
