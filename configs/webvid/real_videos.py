"""The real videos that an evaluation takes distances to, for the configs of this folder."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_real_videos() -> ConfigDict:
    """The `real` section of an evaluation's config; docs/metrics.md explains the fields."""
    real = ConfigDict()
    real.folder = ""  # of the video files; "": no distances
    real.only_listed = ""  # a list such as trainlist01.txt: no other files than these
    real.only_described = False  # no other files than those that the captions were written for
    real.clips = 2048  # one of each file; 0 for all files
    real.num_frames = placeholder(int)  # as many as the model makes
    real.fps = placeholder(float)  # the model's; 0 for the file's own frames one after another
    real.window = "random"  # or "first", "middle": where in the file
    real.size = "model"  # the central square at the model's resolution; or "own", whole frames
    real.max_skipped_fraction = 0.01  # of the clips; more unusable files than that are an error
    real.num_workers = 0  # decoding processes; 0: one for each core
    real.time_limit = 60.0  # seconds for one file
    return real
