"""Text encoder of the shapes world, trained against clips of four small frames.

python -m videogen_jax.train --config configs/shapes/text.py --workdir runs/shapes/text
"""

from ml_collections import ConfigDict

from configs.base import get_base_config


def get_config(arg: str = "") -> ConfigDict:
    del arg
    config = get_base_config()
    config.stage = "text"
    config.steps = 600
    config.batch_size = 32  # groups of four clips
    config.model = ConfigDict()
    config.model.text_encoder = ConfigDict(
        {
            "vocab_size": 637,  # that of the vocabulary that is trained on the captions
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_layers": 2,
            "num_heads": 4,
            "projection_dim": 128,
            "eos_token_id": 636,
        }
    )
    config.model.uniformity_weight = 1.0
    config.data.source = "shapes_captions"
    config.data.num_frames = 4
    config.data.resolution = 32
    return config
