"""Text encoder of the shapes world, trained against clips of four small frames.

    python -m videogen_jax.train --config configs/shapes/text.py --workdir runs/shapes/text

With the argument "circling" the words for its two senses are trained on alone, in the encoder of the model folder: what
it says of any other caption stays as it is, and so do the stages that were trained with it.
"""

from ml_collections import ConfigDict

from configs.base import get_base_config


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "circling"):
        raise ValueError(f"the argument of this config is nothing or circling, not {arg!r}")
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
    if arg == "circling":
        config.steps = 300
        config.init_from = config.get_ref("model_folder") + ""  # follows the folder until set
        config.optimizer.weight_decay = 0.0  # which would change the other embeddings
        config.model.trained_words = ("clockwise", "counterclockwise")
    return config
