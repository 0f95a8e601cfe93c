"""Text encoder of the shapes world, trained against clips of four small frames.

    python -m videogen_jax.train --config configs/shapes/text.py --workdir runs/shapes/text

With the argument `words=circling` only the embeddings of "clockwise" and "counterclockwise" are trained, in the encoder
of the model folder. The states of all other captions stay as they are, and so do the stages that were trained on them.
"""

from ml_collections import ConfigDict

from configs.arguments import Key, read_arguments
from configs.base import get_base_config, stage_defaults
from videogen_jax.models.text_encoder import CLIPTextEncoder
from videogen_jax.stages.text import TextStage


def get_config(arg: str = "") -> ConfigDict:
    args = read_arguments(arg, words=Key("all", ("all", "circling")))
    config = get_base_config()
    config.stage = "text"
    config.steps = 600
    config.batch_size = 32  # groups of four clips
    config.model = stage_defaults(TextStage, text_encoder=CLIPTextEncoder)
    config.model.text_encoder.update(
        vocab_size=637,  # of the tokenizer that is trained on the captions
        hidden_size=128,
        intermediate_size=512,
        num_layers=2,
        num_heads=4,
        projection_dim=128,
        eos_token_id=636,
    )
    config.model.uniformity_weight = 1.0
    config.data.source = "shapes_captions"
    config.data.num_frames = 4
    config.data.resolution = 32
    if args.words == "circling":
        config.steps = 300
        config.init_from = config.get_ref("model_folder") + ""  # follows the folder until set
        config.optimizer.weight_decay = 0.0  # which would change the other embeddings
        config.model.trained_words = ("clockwise", "counterclockwise")
    return config
