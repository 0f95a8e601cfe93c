"""Turn the body of a request into a job, checked against the model before it is queued."""

import secrets
import unicodedata

import numpy as np

from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.studio.clients import Client
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.jobs import Job, Stage
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import FAILED, Model
from videogen_jax.studio.schemas import JobBody, ReferenceBody
from videogen_jax.studio.uploads import Uploads

_JOINERS = "\u200c\u200d"  # invisible, but part of the spelling of words and emoji


def plan(body: JobBody, client: Client, model: Model, gallery: Gallery, uploads: Uploads, limits: Limits) -> Job:
    """Build the job for the body of a request. May read files, so it must not be called on the event loop.

    Raises:
      Refused: 422 for an invalid field, 503 if the model is not loaded far enough or cannot be loaded.
    """
    prompt = check_characters(body.prompt, limits)
    if model.status == FAILED:
        raise Refused(503, f"No videos can be made: the model could not be loaded ({model.detail}).")
    index = model.index
    if index is None:
        raise Refused(503, f"The model is not there yet: {model.detail}. Try again soon.", {"Retry-After": "5"})
    for name, (minimum, maximum) in limits.settings.items():
        value = getattr(body, name)
        if value is not None and not minimum <= value <= maximum:
            raise Refused(422, f"{name} is {value:g}, but must be from {minimum:g} to {maximum:g}.")
    reference = None if body.reference is None else _reference(body.reference, client, gallery, uploads)
    if reference is None and index.reads_reference and not model.draws_reference:
        raise Refused(422, "reference is missing: this model draws none, so an image has to be given.")
    if index.reads_text or reference is None:
        check_not_empty(prompt)
    content = body.model_dump(exclude={"reference"}) | {"prompt": prompt, "reference": reference}
    if body.seed is None:
        content["seed"] = secrets.randbelow(2**32)
    try:
        request = SamplingRequest.from_json(content).resolve(index)
    except ValueError as error:
        raise Refused(422, f"{str(error).replace('num_frames', 'frames')}.") from error
    names = model.stages(request.temporal_factor, reference is None)
    steps = {name: request.stages[name].steps if name in request.stages else 1 for name in names}
    return Job(
        client=client,
        request=request,
        settings=body.model_dump(exclude={"prompt", "seed", "reference"})
        | {"reference": body.reference and body.reference.model_dump(exclude_none=True)},
        unknown_words=model.vocabulary.unknown(prompt) if model.vocabulary else [],
        stages={name: Stage(name, of) for name, of in steps.items()},
        base_fps=index.fps,
    )


def check_prompt(prompt: str, limits: Limits) -> str:
    """Normalize the whitespace of a prompt and check it.

    Raises:
      Refused: 422 if it is empty, too long, or contains characters that cannot be displayed.
    """
    prompt = check_characters(prompt, limits)
    check_not_empty(prompt)
    return prompt


def check_not_empty(prompt: str) -> None:
    """Refused: 422 if a prompt is empty."""
    if all(unicodedata.category(character)[0] in "ZCM" for character in prompt):
        raise Refused(422, "prompt is empty: say what the video should show.")


def check_characters(prompt: str, limits: Limits) -> str:
    """Normalize the whitespace of a prompt, which may be empty, and check its length and its characters.

    Raises:
      Refused: 422 if it is too long, or contains characters that cannot be displayed.
    """
    prompt = " ".join(prompt.split())
    for character in prompt:
        # Control and format characters (which can reverse the direction of text), lone surrogates, unassigned ones.
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn") and character not in _JOINERS:
            raise Refused(422, f"prompt holds U+{ord(character):04X}, a character that cannot be shown.")
    if len(prompt) > limits.prompt:
        raise Refused(422, f"prompt has {len(prompt)} characters, but at most {limits.prompt} are taken.")
    return prompt


def _reference(body: ReferenceBody, client: Client, gallery: Gallery, uploads: Uploads) -> np.ndarray:
    """Return the reference image that the body refers to, uint8 `(H, W, 3)`."""
    names = tuple(name for name in ("upload", "result", "frame") if getattr(body, name) is not None)
    if names == ("upload",):
        upload = uploads.get(client, body.upload)
        if upload is None:
            raise Refused(422, f"reference.upload: there is no upload {body.upload}, or no longer: send it again.")
        return upload.image
    if names == ("result", "frame"):
        try:
            return gallery.frame(body.result, body.frame)
        except Refused as refused:
            raise Refused(422, f"reference: {refused.sentence}") from refused
    raise Refused(422, "reference must be either upload, or result and frame together.")
