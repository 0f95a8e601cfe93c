"""Evaluation on UCF-101: Inception score and Fréchet video distance, a prompt for each of its 101 classes.

    python -m videogen_jax.evaluate --config configs/webvid/evaluate_ucf101.py --model MODEL --output OUT \\
        --config.real.folder=UCF-101 --config.weights.i3d=i3d_torchscript.pt \\
        --config.weights.c3d=conv3d_deepnetA_ucf.npz --config.weights.c3d_mean=mean2.npz

docs/metrics.md says which papers use which number of videos and which prompts.
"""

from ml_collections import ConfigDict

from configs.evaluation import get_evaluation_config
from configs.webvid.real_videos import get_real_videos


def get_config() -> ConfigDict:
    config = get_evaluation_config()
    config.parts = ("prompts",)
    config.captions = ConfigDict({"source": "ucf101"})
    config.captions.prompts_from = "sentences"  # or "class_names"
    config.captions.videos = 10_000  # over all classes together
    config.captions.class_counts = ""  # trainlist01.txt, for classes as often as in that file; "" for equal counts
    config.real = get_real_videos()
    return config
