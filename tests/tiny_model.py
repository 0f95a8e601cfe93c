"""A whole model folder, tiny and untrained: every part of VideoGen, made in a few seconds."""

from pathlib import Path

import jax
import numpy as np

from videogen_jax.runtime.files import save_json
from videogen_jax.stages.stage import InputSizes, batch_spec
from videogen_jax.training.build import build_stage
from videogen_jax.weights.folder import INDEX_NAME
from videogen_jax.weights.parts import save_public_part
from videogen_jax.weights.scheduler_config import save_scheduler
from videogen_jax.weights.templates import parameter_shapes
from videogen_jax.weights.tokenizer import load_tokenizer, train_tokenizer

CAPTIONS = ("a small red circle moving right slowly on a gray background", "a large blue square growing on a black one")
LENGTH = 16  # tokens
WIDTH = 16  # of the text states
CHANNELS = 4  # of the latents
FRAMES = 4
RESOLUTIONS = (4, 8)  # of the cascade: frames of 8 and 16 pixels

_UNET = {
    "block_out_channels": (16,),
    "layers_per_block": 1,
    "cross_attention": (False,),  # the middle has transformers
    "num_heads": 2,
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 4,
}
_SCHEDULE = {"name": "cosine", "rescale_zero_terminal_snr": True}
_AUTOENCODER = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Writes the model into `folder` and returns it. Frames are 16x16, 4 of them, and 13 after upsampling by 4."""
    train_tokenizer(CAPTIONS, folder / "tokenizer", LENGTH)
    tokenizer = load_tokenizer(folder / "tokenizer")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_layers": 1,
        "num_heads": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "max_positions": LENGTH,
        "projection_dim": WIDTH,
    }
    upsampler = {"flow_widths": (8,), "refine_widths": (8,), "feature_channels": 4, "groups": 4}
    diffusion = {"unet": _UNET, "schedule": _SCHEDULE, "prediction_type": "v_prediction"}
    stages = [
        build_stage("text", {"text_encoder": text, "video_channels": (8, 8)}),
        build_stage("autoencoder", {"autoencoder": {**_AUTOENCODER, "latent_channels": CHANNELS}}),
        build_stage("reference", diffusion),
        build_stage("temporal", {"upsampler": upsampler, "factor": 4}),
        build_stage("decoder", {"decoder": {**_AUTOENCODER, "use_post_quant_conv": True}, "adversarial_weight": 0.0}),
    ]
    for lower, resolution in zip((None, *RESOLUTIONS), RESOLUTIONS, strict=False):
        sizes = {"resolution": resolution, "lower_resolution": lower, "latent_channels": CHANNELS}
        stages.append(build_stage("cascade", {**diffusion, **sizes}))
    sizes = InputSizes(resolution=RESOLUTIONS[-1], latent_channels=CHANNELS, text_length=LENGTH)
    for number, stage in enumerate(stages):
        shapes = parameter_shapes(stage, stage.init, batch_spec(stage.input_spec(sizes)))
        params = random_params(shapes, seed + number)
        for name, (part, config) in stage.parts().items():
            if name == "vae":
                config = {**config, "scaling_factor": 0.5, "shift_factor": 0.1}
            save_public_part(folder / part, config, params[name])
            if name == "unet":
                save_scheduler(folder, stage)
    save_json(
        folder / INDEX_NAME,
        {
            "_class_name": "VideoGenPipeline",
            "cascade": [f"cascade_{resolution}" for resolution in RESOLUTIONS],
            "num_frames": FRAMES,
            "fps": 7.5,
            "temporal_factor": 2,
            "sampling": {"steps": 2, "guidance_scale": 2.0, "decode_chunk": 3, "decode_overlap": 1},
        },
    )
    return folder


def random_params(shapes, seed: int):
    """Small random numbers everywhere, so that no layer is the zero or the identity that it begins as."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0.0, 0.15, leaf.shape).astype(np.float32), shapes)
