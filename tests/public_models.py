"""Tiny networks of diffusers with random weights, and pictures to animate, for tests of public video models."""

import diffusers
import numpy as np
import torch
import transformers

from videogen_jax.weights.tokenizer import load_tokenizer, train_tokenizer

FRAMES, SIZE, LENGTH, WIDTH = 8, (64, 128), 16, 24  # of videos, in pixels, of prompts in tokens, of text states
PROMPTS = ["a red circle moves", "two boats on a stormy sea"]
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KARRAS = {  # as published for img2vid and img2vid-xt
    **STABLE_DIFFUSION,
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_type": "continuous",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "interpolation_type": "linear",
}
DDIM = {"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False, "steps_offset": 1}
WIDTHS = (32, 64)
BLOCKS_3D = {
    "sample_size": 32,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "block_out_channels": WIDTHS,
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
}
BLOCKS_2D = {
    "block_out_channels": WIDTHS,
    "layers_per_block": 1,
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def randomize(network: torch.nn.Module) -> torch.nn.Module:
    """Random parameters, none of them at zero: zeros hide layers."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.8 / np.sqrt(parameter[0].numel()))
        else:
            torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.2)
    return network.eval()


def pictures(size: tuple[int, int]) -> list[np.ndarray]:
    """Two images uint8 `(*size, 3)`, smooth and unlike each other."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [np.stack([rows * 3, columns + 60 * k, 128 + 100 * np.sin(rows / 9 + k)], axis=-1) for k in range(2)]
    return [plane.astype(np.uint8) for plane in planes]


def gaussian_noise(*shape: int, seed: int = 3) -> np.ndarray:
    """Standard normal float32, as `latents=` takes it."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokenizer_in(folder):
    """A tokenizer, trained in `folder`."""
    train_tokenizer(PROMPTS, folder, LENGTH)
    return load_tokenizer(folder)


def image_autoencoder():
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return randomize(
        diffusers.AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, scaling_factor=0.5, **blocks)
    )


def text_encoder(tokenizer, width=WIDTH, layers=2, projection=None):
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act="gelu",
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.eos_token_id,
        **({} if projection is None else {"projection_dim": projection}),
    )
    kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    return randomize(kind(config))


def image_encoder():
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=224,
        patch_size=56,
        projection_dim=WIDTH,
        hidden_act="gelu",
    )
    return randomize(transformers.CLIPVisionModelWithProjection(config))


def text_parts(folder, layers=2):
    """Autoencoder, text encoder and tokenizer."""
    tokenizer = tokenizer_in(folder)
    return {
        "vae": image_autoencoder(),
        "text_encoder": text_encoder(tokenizer, layers=layers),
        "tokenizer": tokenizer,
    }


def stable_video_diffusion():
    torch.manual_seed(0)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=WIDTHS,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        num_attention_heads=(2, 4),
        num_frames=FRAMES,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=2
    )
    return _quiet(
        diffusers.StableVideoDiffusionPipeline(
            vae=randomize(vae),
            image_encoder=image_encoder(),
            unet=randomize(unet),
            scheduler=diffusers.EulerDiscreteScheduler(**KARRAS),
            feature_extractor=transformers.CLIPImageProcessor(),
        )
    )


def modelscope(parts):
    torch.manual_seed(1)
    scheduler = diffusers.DDIMScheduler(**DDIM, beta_schedule="scaled_linear", set_alpha_to_one=False)
    unet = randomize(diffusers.UNet3DConditionModel(**BLOCKS_3D))
    return _quiet(diffusers.TextToVideoSDPipeline(unet=unet, scheduler=scheduler, **parts))


def i2vgen_xl(parts):
    torch.manual_seed(2)
    scheduler = diffusers.DDIMScheduler(
        **DDIM,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
    )
    return _quiet(
        diffusers.I2VGenXLPipeline(
            unet=randomize(diffusers.I2VGenXLUNet(**BLOCKS_3D)),
            image_encoder=image_encoder(),
            feature_extractor=transformers.CLIPImageProcessor(),
            scheduler=scheduler,
            **parts,
        )
    )


def stable_diffusion(parts):
    torch.manual_seed(1)
    return _quiet(
        diffusers.StableDiffusionPipeline(
            unet=randomize(
                diffusers.UNet2DConditionModel(**BLOCKS_2D, cross_attention_dim=WIDTH, attention_head_dim=4)
            ),
            scheduler=diffusers.PNDMScheduler(**STABLE_DIFFUSION, skip_prk_steps=True, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **parts,
        )
    )


def motion_adapter(seed, **fields):
    torch.manual_seed(seed)
    return randomize(diffusers.MotionAdapter(WIDTHS, motion_layers_per_block=1, motion_max_seq_length=10, **fields))


def _quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
