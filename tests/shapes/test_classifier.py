"""The classifier of the shapes world: sizes, and that it learns to tell clips apart by what they show."""

import jax
import numpy as np
import optax
import pytest

from tests.tiny_model import random_params
from videogen_jax.metrics.frechet import BlockMoments, frechet_distance
from videogen_jax.runtime.arrays import to_unit
from videogen_jax.shapes.classifier import ClassifierStage, ShapesClassifier
from videogen_jax.shapes.features import load_shapes_classifier
from videogen_jax.shapes.sources import LABELS, ShapesLabelledClips
from videogen_jax.shapes.world import sample_clip
from videogen_jax.weights.hub import EMBEDDED_CLASSIFIER, resolve

FIELDS = {
    "num_classes": tuple(len(values) for values in LABELS.values()),
    "widths": (8, 16),
    "features": 32,
    "num_frames": 4,
    "resolution": 16,
}


def test_labels_say_what_the_caption_says():
    source = ShapesLabelledClips("all", 0, 50, 4, 16)
    for index in range(50):
        example, clip = source[index], sample_clip(0, index, "all")
        said = [values[number] for values, number in zip(LABELS.values(), example["labels"], strict=True)]
        assert said[:4] == [clip.size, clip.colour, clip.shape, clip.motion]
        assert " ".join(["" if said[5] == "plain" else said[5], said[4]]).strip() == clip.background


@pytest.fixture(scope="module")
def untrained():
    """A network and a function that gives its output, and the output of its first layer, for three clips."""
    network = ShapesClassifier(**FIELDS)
    shapes = jax.eval_shape(network.init, jax.random.key(1), np.zeros((3, 4, 16, 16, 3), np.float32))
    params = random_params(shapes, seed=0)

    @jax.jit
    def run(video):
        output, state = network.apply(params, video, capture_intermediates=lambda module, _: module.name == "patches")
        return output, state["intermediates"]["patches"]["__call__"][0]

    return network, params, run


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(0).normal(size=(3, 4, 16, 16, 3)).astype(np.float32)


def test_logits_features_and_sizes(untrained, video):
    network, params, run = untrained
    (logits, features), _ = run(video)
    assert [of_one.shape for of_one in logits] == [(3, len(values)) for values in LABELS.values()]
    assert features.shape == (3, 32)
    with pytest.raises(ValueError, match="takes clips of"):
        jax.eval_shape(network.apply, params, video[:, :2])
    with pytest.raises(ValueError, match="num_frames divisible by 4"):
        jax.eval_shape(ShapesClassifier(**{**FIELDS, "num_frames": 6}).init, jax.random.key(0), video)


def test_a_patch_is_one_place(untrained, video):
    """Moving the picture by a patch moves the first layer's output by a place: pixels are not mixed up."""
    *_, run = untrained

    def patches(x):
        return run(x)[1]

    moved = patches(np.roll(video, (4, 8), axis=(2, 3)))
    np.testing.assert_allclose(moved, np.roll(patches(video), (1, 2), axis=(2, 3)), atol=1e-5)


def test_it_learns_a_few_clips_by_heart():
    stage = ClassifierStage(FIELDS, noise=0.0)
    source = ShapesLabelledClips("all", 0, 16, 4, 16)
    examples = [source[i] for i in range(16)]
    batch = {name: np.stack([example[name] for example in examples]) for name in ("video", "labels")}
    rng = jax.random.key(0)
    params = jax.jit(stage.init)(rng, batch)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        (_, metrics), gradient = jax.value_and_grad(stage.loss, has_aux=True)(params, {}, batch, rng)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, metrics

    state = optimizer.init(params)
    for _ in range(60):
        params, state, metrics = step(params, state)
    assert metrics["accuracy_all"] > 0.9


def test_the_embedded_one_tells_fresh_clips_apart():
    """998 of 1,000 were right in all (docs/metrics.md): more than two wrong of 96 would come once in 1,000 times."""
    network, params = load_shapes_classifier(resolve(EMBEDDED_CLASSIFIER))
    run = jax.jit(lambda video: network.apply({"params": params}, to_unit(video)))
    source = ShapesLabelledClips("all", 77, 96, network.num_frames, network.resolution)
    examples = [source[i] for i in range(96)]
    video, labels = (np.stack([example[name] for example in examples]) for name in ("video", "labels"))
    halves = [run(half) for half in np.split(video, 2)]
    logits, features = jax.tree.map(lambda *parts: np.concatenate(parts), *halves)
    guessed = np.stack([of_one.argmax(axis=-1) for of_one in logits], axis=-1)
    assert (guessed != labels).any(axis=-1).sum() <= 2

    def distance(spoilt):
        sides = [BlockMoments(), BlockMoments()]
        for side, some in zip(sides, (features[:48], run(spoilt)[1]), strict=True):
            side.update(np.asarray(some))
        return frechet_distance(*(side.total for side in sides))

    others = video[48:]
    blurred = others.reshape(48, 8, 16, 4, 16, 4, 3).mean(axis=(3, 5)).repeat(4, axis=2).repeat(4, axis=3)
    unspoilt = distance(others)
    assert distance(blurred.astype(np.uint8)) > 2 * unspoilt
    assert distance(np.repeat(others[:, :1], 8, axis=1)) > 2 * unspoilt  # the first frame all along: nothing moves
