"""What evaluation configs share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.sampling import set_stage_settings


def get_evaluation_config() -> ConfigDict:
    """How videos are sampled, and the networks that measure them.

    A sampling field without a value is as in the model's `model_index.json`.
    """
    config = ConfigDict()
    config.seed = 0
    config.dtype = ""  # float32, bfloat16 or float16; "" is float32 on a CPU and bfloat16 elsewhere
    config.batch_size = 8  # videos sampled at once

    config.sampling = ConfigDict()
    config.sampling.temporal_factor = placeholder(int)
    set_stage_settings(config.sampling)

    # Feature networks of published measures, whose weights you download yourself (docs/metrics.md says where). A
    # measure whose network has no weights is left out of the report, which then says which field to set.
    config.weights = ConfigDict()
    config.weights.i3d = ""  # Fréchet video distance: a file
    config.weights.inception = ""  # Fréchet inception distance: a file
    config.weights.c3d = ""  # Inception score on video: a file
    config.weights.c3d_mean = ""  # the mean of its training clips, if the file has none
    config.weights.clip = ""  # CLIPSIM and CLIP frame consistency: a folder
    config.fvd_protocol = "tensorflow"  # or "videogpt"

    # Videos that report.html shows: in the shapes world, failures of each attribute and as many of the best.
    config.report_videos = 4
    config.report_beside = ""  # metrics.json of another evaluation, to compare with in report.html
    return config
