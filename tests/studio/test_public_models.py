"""The studio with public video models: which fields a job has, and what may be left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from videogen_jax.studio.errors import Refused
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import READY, Model
from videogen_jax.studio.plan import plan
from videogen_jax.studio.schemas import JobBody
from videogen_jax.studio.uploads import Upload
from videogen_jax.studio.vocabulary import Vocabulary
from videogen_jax.weights.public_video import VIDEO, PublicVideoIndex, StableVideoDiffusionIndex

UPLOAD = "0123456789abcdef"
IMAGE = np.zeros((64, 128, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class AnimatingIndex(StableVideoDiffusionIndex):
    """In no folder."""

    size_multiple = 64


@dataclasses.dataclass(frozen=True)
class TextAloneIndex(PublicVideoIndex):
    """Reads the prompt and no image."""

    class_name, trained_size, reads_reference, size_multiple = "TextAlonePipeline", (256, 256), False, 8


class OneUpload:
    def get(self, client, name):
        return Upload(name, client, IMAGE, 0.0) if name == UPLOAD else None


def served(index) -> Model:
    return Model(source=None, status=READY, index=index, draws_reference=False, vocabulary=Vocabulary([], lambda _: []))


@pytest.fixture
def animating() -> Model:
    sampling = {VIDEO: dict(StableVideoDiffusionIndex._DEFAULTS)}
    return served(AnimatingIndex(Path("svd"), (VIDEO,), 25, 7.0, sampling=sampling))


@pytest.fixture
def text_alone() -> Model:
    return served(TextAloneIndex(Path("text"), (VIDEO,), 16, 8.0, sampling={VIDEO: {"steps": 50}}))


def job(model: Model, **fields):
    return plan(JobBody(**fields), None, model, None, OneUpload(), Limits())


def test_the_fields_of_a_model_are_its_own(animating, text_alone, fake):
    for model, has, lacks in (
        (animating, {"motion_bucket_id", "noise_aug_strength", "min_guidance_scale"}, {"reference_guidance_scale"}),
        (text_alone, {"guidance_scale", "steps"}, {"motion_bucket_id", "reference_guidance_scale"}),
        (served(fake.index()), {"reference_guidance_scale"}, {"motion_bucket_id", "conditioning_fps"}),
    ):
        model.source = fake.FakeSource()
        limits = model.view(Limits()).limits.model_dump(exclude_none=True)
        assert has <= set(limits)
        assert not lacks & set(limits)
    view = animating.view(Limits())
    assert (view.defaults.motion_bucket_id, view.defaults.conditioning_fps, view.reads_text) == (127, 7.0, False)
    assert view.stages == ["video", "decode"]
    assert (view.examples, len(text_alone.view(Limits()).examples)) == ([], 6)
    assert text_alone.view(Limits()).stages == ["text", "video", "decode"]


def test_an_image_is_animated_without_a_sentence(animating):
    made = job(animating, reference={"upload": UPLOAD}, motion_bucket_id=30, min_guidance_scale=2.0)
    settings = made.request.stages[VIDEO]
    assert (settings.motion_bucket_id, settings.min_guidance_scale, made.request.prompts) == (30, 2.0, ("",))
    with pytest.raises(Refused, match="reference is missing"):
        job(animating, prompt="a rocket")
    with pytest.raises(Refused, match="motion_bucket_id is 256, but must be from 0 to 255"):
        job(animating, reference={"upload": UPLOAD}, motion_bucket_id=256)
    with pytest.raises(Refused, match="reference_guidance_scale is not a setting of this model"):
        job(animating, reference={"upload": UPLOAD}, reference_guidance_scale=2.0)


def test_a_sentence_alone_is_enough_for_a_model_of_text(text_alone):
    made = job(text_alone, prompt="a rocket")
    assert (list(made.stages), made.stages[VIDEO].of) == (["text", "video", "decode"], 50)
    for fields, message in (
        ({}, "prompt is empty"),
        ({"prompt": "a rocket", "reference": {"upload": UPLOAD}}, "no use for a reference image"),
        ({"prompt": "a rocket", "motion_bucket_id": 30}, "motion_bucket_id is not a setting of this model"),
    ):
        with pytest.raises(Refused, match=message):
            job(text_alone, **fields)
