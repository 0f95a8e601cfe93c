"""Sampling with the embedded model of the shapes world, or any other model folder.

    python -m videogen_jax.sample --prompt "a small red circle moving right slowly on a gray background"

A field without a value is as in the model's `model_index.json`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.sampling import set_stage_settings


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.model = ""  # a model folder or hub id; "" is the embedded model, "embedded/shapes"
    config.reference_model = ""  # a text-to-image model in diffusers' layout, to draw the reference images instead
    config.upper_model = ""  # a model like ZeroScope XL, which makes the videos of one like ZeroScope larger
    config.motion_adapter = ""  # AnimateDiff's, which makes a video model of a Stable Diffusion folder
    config.motion_norm = ""  # of its motion modules: "frame", as they were trained, or "video", as in diffusers
    config.sparse_control = ""  # SparseCtrl's network for RGB images, with a motion_adapter
    config.dtype = ""  # float32, bfloat16 or float16; "" is float32 on a CPU and bfloat16 elsewhere
    config.aot = ""  # a folder of programs that videogen_jax.export_sampler wrote; they need no tracing
    config.seed = 0
    config.batch_size = 4  # prompts of a file, sampled at once
    config.frames = placeholder(int)
    config.fps = placeholder(float)  # of the written file only
    config.size = ""  # height x width in pixels, as "128x192"; "" is the size that the model was trained on
    config.temporal_factor = placeholder(int)  # of temporal upsampling; without a value it follows from frames

    set_stage_settings(config)  # sections reference and cascade

    config.decode_chunk = placeholder(int)  # frames decoded at once
    config.decode_overlap = placeholder(int)  # of these, at each end, frames that serve only as context

    config.sheet_columns = 8  # frames in a row of the contact sheet
    return config
