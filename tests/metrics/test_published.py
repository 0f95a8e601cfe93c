"""Measures on the features of networks: what is stored, which weights are missing, that values stream from files."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.shapes.tiny_classifier import write_tiny_classifier
from videogen_jax.metrics import feature_networks, published
from videogen_jax.metrics.frechet import BlockMoments, frechet_distance
from videogen_jax.shapes import features

NONE = {**dict.fromkeys(published.NETWORKS, ""), "c3d_mean": ""}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_tiny_classifier(tmp_path_factory.mktemp("classifier"))


def _videos(seed, count):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 7, 20, 20, 3)).astype(np.uint8))


def test_shapes_frechet_distance_streams_from_files(classifier, tmp_path, monkeypatch):
    weights = {**NONE, "shapes_classifier": classifier}
    measures = published.PublishedMeasures(weights, tmp_path, "tensorflow")
    made, real = _videos(0, 12), _videos(1, 9)
    keys = [f"m{i}" for i in range(12)]
    others = [f"r{i}" for i in range(9)]
    assert not measures.has("m0")
    measures.add(keys[:5], [""] * 5, made[:5])
    measures.add(keys, [""] * 12, made)
    measures.add(others, [""] * 9, real)
    found = measures.summary(keys, others)
    assert set(found) == {"shapes_frechet_distance"}

    network, params = features.load_shapes_classifier(classifier)
    sides = []
    for videos in (made, real):
        moments = BlockMoments()
        for video in videos:
            chosen = video[[0, 2, 4, 6]].astype(np.float32) / 127.5 - 1
            small = jax.image.resize(chosen, (4, 16, 16, 3), "linear", antialias=True)
            moments.update(network.apply({"params": params}, small[None])[1])
        sides.append(moments.total)
    assert found["shapes_frechet_distance"]["value"] == pytest.approx(frechet_distance(*sides), rel=1e-3)
    assert found["shapes_frechet_distance"]["counts"] == [12, 9]

    again = published.PublishedMeasures(weights, tmp_path, "tensorflow")
    monkeypatch.setattr(features, "load_shapes_classifier", None)  # nothing is left to do: it is not read
    assert again.has("m11")
    again.add(keys, [""] * 12, made)
    assert again.summary(keys, others) == found


def test_every_measure_of_given_features(tmp_path, monkeypatch):
    """Networks are replaced by tables; what the measures make of them is compared with the definitions."""
    rng = np.random.default_rng(2)
    table = {
        "i3d": {"logits": rng.normal(size=(20, 5))},
        "inception": {"features": rng.normal(size=(20, 3, 4))},
        "c3d": {"logits": rng.normal(size=(20, 3))},
        "clip": {"text": rng.uniform(0.2, 0.3, 20), "neighbours": rng.uniform(0.9, 1.0, 20)},
    }
    weights = dict(NONE)
    for network, arrays in table.items():
        weights[network] = str(tmp_path / network)
        (tmp_path / network).write_bytes(network.encode())

        def build(*_, arrays=arrays):
            return lambda videos, _: [{k: v[int(video)] for k, v in arrays.items()} for video in videos]

        monkeypatch.setitem(published.EXTRACTORS, network, build)
    measures = published.PublishedMeasures(weights, tmp_path / "features", "videogpt")
    keys = [str(i) for i in range(20)]
    measures.add(keys, keys, range(20))
    found = measures.summary(keys[:10], keys[10:])
    assert set(found) == set(published.MEASURES) - {"shapes_frechet_distance"}
    logits = table["i3d"]["logits"]
    sides = [BlockMoments(), BlockMoments()]
    sides[0].update(logits[:10])
    sides[1].update(logits[10:])
    assert found["fvd"]["value"] == pytest.approx(frechet_distance(sides[0].total, sides[1].total), rel=1e-9)
    assert found["fid"]["counts"] == [30, 30]
    assert found["clipsim"]["value"] == pytest.approx(100 * table["clip"]["text"][:10].mean())
    assert found["clip_consistency"]["count"] == 10
    assert found["video_inception_score"]["count"] == 10
    other = published.PublishedMeasures(weights, tmp_path / "features", "tensorflow")
    assert not other.has("0")  # the same weights by another protocol are other features


def test_what_to_pass():
    missing = published.not_measured({**NONE, "clip": "somewhere"})
    assert set(missing) == {"fvd", "fid", "video_inception_score", "shapes_frechet_distance"}
    assert "--config.weights.i3d=PATH" in missing["fvd"]


def test_weights_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"weights\.i3d is nowhere, which does not exist"):
        published.PublishedMeasures({**NONE, "i3d": "nowhere"}, tmp_path, "tensorflow")
    with pytest.raises(ValueError, match="fvd_protocol is 'mine'"):
        published.PublishedMeasures(NONE, tmp_path, "mine")
    save_file({"some.weight": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    for extractor in (feature_networks.i3d_extractor, feature_networks.inception_extractor):
        with pytest.raises(ValueError, match=r"w\.safetensors: the tensors do not fit"):
            extractor(path)
    with pytest.raises(ValueError, match=r"no tensor called mean: pass the mean, --config\.weights\.c3d_mean=FILE"):
        feature_networks.c3d_extractor(path)
    np.savez(tmp_path / "w.npz", a=np.zeros(2))
    assert feature_networks.read_weights(tmp_path / "w.npz")["a"].shape == (2,)
    with pytest.raises(ValueError, match="does not exist"):
        feature_networks.read_weights(tmp_path / "none.pt")


def test_clip_similarities_and_choice_of_frames():
    frames = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], np.float32)
    found = feature_networks.clip_similarities(frames, np.array([1.0, 0.0], np.float32))
    assert found["text"] == pytest.approx(1.6 / 3)
    assert found["neighbours"] == pytest.approx((0.0 + 0.8) / 2)
    video = np.arange(31)
    assert feature_networks.first_frames(video, 16).tolist() == list(range(16))
    assert features.evenly_spaced(video, 4).tolist() == [0, 10, 20, 30]
    with pytest.raises(ValueError, match="a video of 9 frames is too short for a network that takes 16"):
        feature_networks.first_frames(video[:9], 16)
