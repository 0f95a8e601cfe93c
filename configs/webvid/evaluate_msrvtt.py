"""Evaluation on MSR-VTT's test set, or any captions: CLIPSIM, and distances where there are real videos.

    python -m videogen_jax.evaluate --config configs/webvid/evaluate_msrvtt.py --model MODEL --output OUT \\
        --config.captions.file=test_videodatainfo.json --config.weights.clip=clip-vit-base-patch32/ \\
        --config.real.folder=TestVideo --config.weights.inception=pt_inception-2015-12-05-6726825d.pth

The captions are MSR-VTT's JSON, or your own list: .txt, .csv or .jsonl (docs/metrics.md). With your own list, pass
--config.real.only_described=false so that the real videos may be any files of the folder.
"""

from ml_collections import ConfigDict

from configs.evaluation import get_evaluation_config
from configs.webvid.real_videos import get_real_videos


def get_config() -> ConfigDict:
    config = get_evaluation_config()
    config.parts = ("prompts",)
    config.captions = ConfigDict({"source": "file"})
    config.captions.file = ""
    config.captions.split = "test"  # of a .json, "" for all; a list of captions has no splits
    config.captions.of_each = 1  # captions per described video, drawn by the seed; 0 for all
    config.captions.videos = 0  # number of described videos; 0 for all
    config.captions.seeds = 1  # videos sampled for each caption
    config.real = get_real_videos()
    config.real.only_described = True
    return config
