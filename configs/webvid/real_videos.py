"""The real videos that an evaluation compares with, for the configs of this folder."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_real_videos() -> ConfigDict:
    """The `real` section of an evaluation's config; docs/metrics.md explains the fields."""
    real = ConfigDict()
    real.folder = ""  # of the video files; "" for no comparison
    real.only_listed = ""  # a list such as trainlist01.txt: use no other files
    real.only_described = False  # use only the files that the captions describe
    real.clips = 2048  # number of clips, one per file; 0 for all files
    real.num_frames = placeholder(int)  # without a value, as many as the model generates
    real.fps = placeholder(float)  # without a value, the model's; 0 for consecutive frames of the file
    real.window = "random"  # where in the file; or "first" or "middle"
    real.size = "model"  # the central square at the model's resolution; "own" for whole frames
    real.max_skipped_fraction = 0.01  # of the clips; more unusable files than this are an error
    real.num_workers = 0  # decoding processes; 0: one for each core
    real.time_limit = 60.0  # seconds to decode one file
    return real
