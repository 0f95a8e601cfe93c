"""Evaluation of a model of the shapes world.

    python -m videogen_jax.evaluate --config configs/shapes/evaluate.py --model runs/shapes/model

Parts one at a time: `--config.parts='("decoder",)'`. A sampling field without a value is as the model's
`model_index.json` says.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.parts = ("prompts", "temporal", "decoder", "autoencoder")
    config.seed = 0
    config.dtype = ""  # float32, bfloat16 or float16; "" is float32 on a CPU and bfloat16 elsewhere

    config.prompts = 64
    config.seeds = 1  # videos of each prompt
    config.batch_size = 8  # videos that are sampled at once
    config.sampling = ConfigDict()
    config.sampling.temporal_factor = placeholder(int)
    config.sampling.reference = ConfigDict()  # the stage that draws the reference image
    config.sampling.reference.guidance_scale = placeholder(float)
    config.sampling.reference.steps = placeholder(int)
    config.sampling.reference.sampler = placeholder(str)
    config.sampling.cascade = ConfigDict()  # all resolutions of the cascade
    config.sampling.cascade.guidance_scale = placeholder(float)
    config.sampling.cascade.reference_guidance_scale = placeholder(float)
    config.sampling.cascade.steps = placeholder(int)
    config.sampling.cascade.sampler = placeholder(str)
    config.sampling.cascade.noise_level = placeholder(int)

    # Feature networks of published measures, each with weights of your own (docs/metrics.md says where from); a measure
    # whose network has none is not in the report, which says what to pass.
    config.weights = ConfigDict()
    config.weights.i3d = ""  # Fréchet video distance: a file
    config.weights.inception = ""  # Fréchet inception distance: a file
    config.weights.c3d = ""  # Inception score on video: a file
    config.weights.c3d_mean = ""  # its mean, where the file has none
    config.weights.clip = ""  # CLIPSIM and CLIP frame consistency: a folder
    config.weights.shapes_classifier = ""  # shapes Fréchet distance: a folder
    config.fvd_protocol = "tensorflow"  # or "videogpt"
    config.real_clips = 256  # rendered clips that distances are taken to

    config.clips = 32  # ground-truth clips that the other parts are measured on
    config.frame_batch = 16  # frames that the autoencoder takes at once
    config.factors = ()  # of temporal upsampling; () is all that the model takes
    config.rates = (1, 2)  # at which the video decoder is measured, multiples of the base frame rate

    config.report_videos = 4  # failures of each attribute, and as many of the best, that report.html shows
    config.report_beside = ""  # metrics.json of another evaluation, to stand beside this one in report.html
    return config
