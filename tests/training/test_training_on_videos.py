"""The configs for real videos, at the size of the tiny model, on a small corpus: 30 steps, exact resume, bad files."""

import json

import jax
import numpy as np
import pytest

from configs.webvid import cascade, decoder, prepare, temporal
from tests.data.synthetic_videos import make_corpus
from videogen_jax.data.preparing import prepare_from
from videogen_jax.training.exporting import export_stage
from videogen_jax.training.run import run

pytestmark = pytest.mark.usefixtures("drawn_by_numpy")
TINY_UNET = {
    "block_out_channels": (16,),
    "layers_per_block": 1,
    "cross_attention": (False,),  # the middle has transformers
    "num_heads": 2,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "remat": False,  # it makes the program longer, and is tested in tests/models
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """30 videos of which 12 cannot be used, with the captions in a .jsonl."""
    folder = tmp_path_factory.mktemp("corpus")
    with (folder / "captions.jsonl").open("wb") as file:
        for video in make_corpus(folder, count=30, faulty=12):
            caption = json.dumps(video.caption.decode("latin-1"), ensure_ascii=video.fault != "wrong encoding")
            file.write(f'{{"file": "{video.path.name}", "caption": {caption}}}\n'.encode("latin-1"))
    return folder


def use_corpus(section, corpus):
    section.corpus.folder = str(corpus / "videos")
    section.corpus.captions = str(corpus / "captions.jsonl")


def make_tiny(config, model, steps=30):
    config.model_folder = str(model)
    config.init_from = ""
    config.steps = steps
    config.batch_size = 4
    config.log_every = 5
    config.sample_every = steps
    config.checkpoint_every = steps
    config.sample_count = 1
    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_steps = 5
    return config


def tiny_cascade(model, source, side=8):
    config = make_tiny(cascade.get_config(f"resolution=64,{source}"), model)
    config.model.unet.update(TINY_UNET)
    config.model.preview_steps = 1
    config.model.resolution = config.data.resolution = side
    config.model.lower_resolution = config.data.lower_resolution = side // 2
    return config


def from_videos(data, corpus, frames):
    use_corpus(data, corpus)
    data.num_frames = frames
    data.num_workers = 2
    data.max_skipped_fraction = 0.5
    data.time_limit = 20.0


def losses(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "data_wait", "clips_per_second"} <= set(records[-1])
    assert all(0.0 <= record["data_wait"] <= 1.0 for record in records)
    return [record["loss"] for record in records]


@pytest.fixture(scope="module")
def data_sets(corpus, tiny_model, tmp_path_factory):
    """Clips, and single frames of the same videos in the place of still images."""
    output = tmp_path_factory.mktemp("prepared")
    for name, frames in (("clips", 4), ("stills", 1)):
        config = prepare.get_config("corpus=folder")
        use_corpus(config, corpus)
        config.name = name
        config.model_folder, config.data_dir = str(tiny_model), str(output)
        config.resolutions, config.clips.num_frames = (4, 8), frames
        config.clips.max_clips = 4
        config.max_skipped_fraction = 0.5
        assert prepare_from(config, num_cores=2)
    return output


def test_the_cascade_learns_from_a_prepared_set_and_still_images(data_sets, tiny_model, tmp_path):
    config = tiny_cascade(tiny_model, "corpus=prepared")
    config.data.folder = str(data_sets / "clips" / "1.0.0")
    config.image_fraction = 0.2
    config.image_data.update({"folder": str(data_sets / "stills" / "1.0.0"), "resolution": 8, "lower_resolution": 4})
    state = run(config, tmp_path / "run")
    assert int(state.step) == 30
    history = losses(tmp_path / "run")
    assert np.mean(history[-2:]) < 0.9 * history[0]


def straight_from_videos(corpus, model, workers):
    config = tiny_cascade(model, "corpus=folder")
    from_videos(config.data, corpus, frames=4)
    config.data.crop = True
    config.data.num_workers = workers
    return config


def test_the_cascade_learns_straight_from_videos(corpus, tiny_model, tmp_path):
    config = straight_from_videos(corpus, tiny_model, workers=2)
    run(config, tmp_path / "run")
    history = losses(tmp_path / "run")
    assert np.mean(history[-2:]) < 0.9 * history[0]
    skipped = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert len(skipped) == len(set(skipped)) in (11, 12)  # the first half of a truncated file can be used
    (part,) = export_stage(config, tmp_path / "run", tmp_path / "model")
    assert (part / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.slow
def test_training_straight_from_videos_resumes_exactly(corpus, tiny_model, tmp_path):
    whole = run(straight_from_videos(corpus, tiny_model, workers=2), tmp_path / "whole")
    run(straight_from_videos(corpus, tiny_model, workers=2), tmp_path / "parts", stop_after=13)
    # The number of processes is no part of the order.
    resumed = run(straight_from_videos(corpus, tiny_model, workers=1), tmp_path / "parts")
    assert int(resumed.step) == 30
    for left, right in zip(jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_decoder_and_the_upsampler_learn_from_unlabelled_videos(corpus, tiny_model, tmp_path):
    tiny = make_tiny(decoder.get_config(), tiny_model, steps=6)
    from_videos(tiny.data, corpus, frames=3)
    tiny.data.corpus.captions = ""
    tiny.data.resolution = 8
    tiny.model.decoder = {"block_out_channels": (8, 8), "norm_num_groups": 4, "use_post_quant_conv": True}
    tiny.model.decoder.layers_per_block = tiny.model.decoder.mid_block_layers = 1
    tiny.model.discriminator = {"channels": (8,), "norm_num_groups": 4}
    assert int(run(tiny, tmp_path / "decoder").step) == 6
    tiny = make_tiny(temporal.get_config(), tiny_model, steps=6)
    from_videos(tiny.data, corpus, frames=9)
    tiny.data.corpus.captions = ""
    tiny.data.resolution, tiny.data.fps = 8, (24.0,)
    tiny.model.upsampler = {"flow_widths": (8,), "refine_widths": (8,), "feature_channels": 4, "groups": 4}
    assert int(run(tiny, tmp_path / "temporal").step) == 6


def test_what_does_not_fit_together_is_refused_before_training(corpus, tiny_model, tmp_path):
    config = tiny_cascade(tiny_model, "corpus=folder")
    from_videos(config.data, corpus, frames=4)
    config.data.corpus.captions = ""
    with pytest.raises(ValueError, match=r"config.data.corpus has no captions, but the stage reads text"):
        run(config, tmp_path)
    config.image_fraction, config.image_data.source = 0.5, "prepared"
    with pytest.raises(ValueError, match=r"config.image_data.source is 'prepared' and config.data.source 'videos'"):
        run(config, tmp_path)
    config = tiny_cascade(tiny_model, "corpus=folder")
    from_videos(config.data, corpus, frames=4)
    with config.data.unlocked():
        config.data.colour = True
    with pytest.raises(ValueError, match=r"config.data of source 'videos': .*'colour'"):
        run(config, tmp_path)
    with pytest.raises(ValueError, match=r"the argument corpus must be csv, folder, images, .*, not 'films'"):
        prepare.get_config("corpus=films")
