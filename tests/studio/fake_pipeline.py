"""A stand-in for the pipeline that makes moving squares at once, and a server that has it.

    python tests/studio/fake_pipeline.py --port 7860 --gallery out/fake --step_seconds 0.05

serves the studio without a model. A prompt that holds "fail", "memory" or "disk" makes a job that fails in that way.
"""

import argparse
import dataclasses
import errno
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videogen_jax.sampling.recipe import Recipe, array_digest
from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.studio.vocabulary import Vocabulary
from videogen_jax.weights.model_index import ModelIndex

SENTENCES = """a small large red green blue yellow purple cyan orange white circle square triangle star moving left
right up down slowly quickly growing shrinking circling clockwise counterclockwise on background black gray navy brown
plain striped checkered"""
WORDS = re.findall(r"\w+", SENTENCES)
RESOLUTION = 32


@dataclasses.dataclass(frozen=True)
class FakeOutput:
    frames: np.ndarray
    reference: np.ndarray
    fps: float
    recipes: tuple[Recipe, ...]


class FakeIndex(ModelIndex):
    """The index of a model that is in no folder."""

    resolution, size_multiple = RESOLUTION, 1


def index(draws: bool = True) -> ModelIndex:
    sampling = {"reference": {"steps": 6, "guidance_scale": 3.0}, "steps": 4, "guidance_scale": 2.0}
    folder = Path("fake")
    return FakeIndex(folder, ("cascade_4", "cascade_8"), 8, 7.5, 2, (1, 2), sampling, folder if draws else None)


class FakePipeline:
    """Calls its callback as the real one does, `step_seconds` apart.

    Attributes:
      calls: the arguments of its runs; steps: what its callback was called with.
      hold: cleared, a run stays in the middle of its first cascade stage, and says so by `held`, until it is set.
    """

    name, fingerprint, resolution = "fake", "ab" * 32, RESOLUTION

    def __init__(self, step_seconds: float = 0.0):
        self.index = index()
        self.step_seconds = step_seconds
        self.calls: list[dict] = []
        self.steps: list[tuple[str, int]] = []
        self.hold, self.held = threading.Event(), threading.Event()
        self.hold.set()

    def __call__(self, prompts: Sequence[str], *, callback=lambda *_: None, previews: bool = False, **settings):
        return self.sample(SamplingRequest.from_keywords(prompts, **settings), callback, previews)

    def sample(self, request: SamplingRequest, callback=None, previews: bool = False) -> FakeOutput:
        request = request.resolve(self.index)
        (prompt,), (seed,), reference = request.prompts, request.seed, request.reference
        settings = request.stages
        self.steps.clear()
        steps = settings["cascade_4"].steps
        self.calls.append({"prompt": prompt, "seed": seed, "reference": reference, "steps": steps})

        def stage(name: str, of: int, preview=lambda step: None) -> None:
            for step in range(of + 1):
                time.sleep(self.step_seconds if step else 0)
                if (name, step) == ("cascade_4", 2):
                    self.held.set()
                    self.hold.wait()
                    self.held.clear()
                self.steps.append((name, step))
                callback(name, step, of, preview(step))

        stage("text", 1)
        if reference is None:
            image = picture(seed, 0)
            steps_of = settings["reference"].steps
            stage("reference", steps_of, lambda step: image[None] if step == steps_of else None)
        else:
            image = reference
        fail_as_asked(prompt)
        for name, side in (("cascade_4", 8), ("cascade_8", 16)):
            small = clip(seed, 8)[:, :: RESOLUTION // side, :: RESOLUTION // side]
            of = settings[name].steps
            stage(name, of, lambda step, of=of, small=small: small[None] if step == of and previews else None)
        frames = clip(seed, request.num_frames)
        if request.temporal_factor > 1:
            stage("temporal", 1, lambda step: frames[None] if step == 1 and previews else None)
        callback("decode", 0, 2, None)
        half = len(frames) // 2
        callback("decode", 1, 2, frames[None, :half])
        callback("decode", 2, 2, frames[None, half:])
        recipe = Recipe(
            request=dataclasses.replace(request, reference=None, decode_overlap=0),
            reference=None if reference is None else array_digest(reference),
            model=self.name,
            fingerprint=self.fingerprint,
            reference_model=None,
            slot=0,
            dtype="float32",
            software={"videogen_jax": "0.1.0"},
        )
        return FakeOutput(frames[None], image[None], request.fps, (recipe,))


def fail_as_asked(prompt: str) -> None:
    if "fail" in prompt:
        raise RuntimeError("the pipeline failed, as it was asked to")
    if "memory" in prompt:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
    if "disk" in prompt:
        raise OSError(errno.ENOSPC, "No space left on device")


def picture(seed: int, time: int) -> np.ndarray:
    """Frame number `time`: a square that moves over a background that changes, both coloured by the seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 3), np.uint8)
    image = np.empty((RESOLUTION, RESOLUTION, 3), np.uint8)
    image[:] = colours[0] + np.uint8(time)
    left = time % (RESOLUTION - 8)
    image[12:20, left : left + 8] = colours[1]
    return image


def clip(seed: int, count: int) -> np.ndarray:
    return np.stack([picture(seed, time) for time in range(count)])


class FakeSource:
    """A model of which everything is there at once; `known` is False: any word goes."""

    name = "fake"

    def __init__(self, step_seconds: float = 0.0, load_seconds: float = 0.0, known: bool = True, draws: bool = True):
        self.pipeline = FakePipeline(step_seconds)
        self.load_seconds, self.known, self.draws = load_seconds, known, draws

    def read(self) -> ModelIndex:
        return index(self.draws)

    def vocabulary(self) -> Vocabulary:
        words = WORDS if self.known else []

        def unknown(prompt: str) -> list[str]:
            found = dict.fromkeys(re.findall(r"\w+|[^\w\s]+", prompt.lower()))
            return [word for word in found if self.known and word not in words]

        return Vocabulary(words, unknown)

    def load(self) -> FakePipeline:
        time.sleep(self.load_seconds)
        return self.pipeline


def main() -> None:
    from videogen_jax.studio.app import create_app
    from videogen_jax.studio.gallery import Gallery
    from videogen_jax.studio.limits import Limits
    from videogen_jax.studio.model import Model
    from videogen_jax.studio.server import bind, run

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--gallery", default="out/fake_gallery")
    parser.add_argument("--gallery_limit", type=int, default=500)
    parser.add_argument("--step_seconds", type=float, default=0.05)
    parser.add_argument("--load_seconds", type=float, default=1.0)
    parser.add_argument("--token", default=None)
    asked = parser.parse_args()
    model = Model(FakeSource(asked.step_seconds, asked.load_seconds))
    gallery = Gallery(asked.gallery, asked.gallery_limit)
    limits = Limits(results=asked.gallery_limit)
    run(create_app(model, gallery, limits, asked.token), bind("127.0.0.1", asked.port))


if __name__ == "__main__":
    main()
