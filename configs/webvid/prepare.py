"""Preparing a WebVid-style corpus for the cascade: a CSV with captions and a folder of mp4.

    python -m videogen_jax.prepare --config configs/webvid/prepare.py --config.corpus.file=results_10M_train.csv \\
        --config.corpus.folder=videos --config.model_folder=stable-diffusion-v1-5 --config.data_dir=data

The argument `corpus` names another kind of corpus (configs/webvid/corpora.py): `prepare.py:corpus=folder`, or images,
webdataset or tfds.
"""

from ml_collections import ConfigDict

from configs.arguments import read_arguments
from configs.webvid.corpora import corpus_key, get_corpus


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.corpus = get_corpus(read_arguments(arg, corpus=corpus_key("csv")).corpus)
    config.model_folder = ""  # folder or hub id with vae, tokenizer and text_encoder
    config.dtype = "float32"  # of these networks; bfloat16 is right for GPU and TPU
    config.data_dir = "data"  # the data set goes to <data_dir>/<name>/1.0.0
    config.name = "webvid"
    config.split = "train"
    config.resolutions = (16, 32, 64)  # sides of the latents, one for each stage of the cascade
    config.text = True  # encode the captions too; False for an unlabelled corpus
    config.reference_frame = "first"  # of each clip, or "random"

    config.clips = ConfigDict()
    config.clips.num_frames = 16
    config.clips.fps = (8.0,)  # each video is sampled at one of these
    config.clips.cut_threshold = 25.0  # videogen_jax.data.clips.ClipRules explains this and the next three
    config.clips.min_motion = 0.4
    config.clips.max_clips = 0
    config.clips.max_seconds = 120.0
    config.clips.seed = 0

    config.entries_per_shard = 256
    config.batch_size = 8  # clips encoded together
    config.num_workers = 0  # decoding processes; 0: one for each core
    config.time_limit = 120.0  # seconds to decode one entry
    config.max_skipped_fraction = 0.05
    return config
