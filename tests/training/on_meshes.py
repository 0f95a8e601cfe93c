"""Trains tiny stages for three steps on one of eight CPU devices and on meshes of all, and prints what came of it.

    python tests/training/on_meshes.py STAGE[,STAGE] DATAxFSDPxFRAMESxTENSOR [...]

As JSON, for each stage: losses by mesh, bytes of parameters on a device, bytes of all that a rule spreads over tensor.
"""

import json
import os
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
if not any("classifier" in stage for stage in sys.argv[1:2]):
    # Compiles sooner. Not the classifier: by finite differences, the gradient through its pooling was wrong at this
    # level on one device already (jaxlib 0.10.2).
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.base import get_base_config
from videogen_jax.training.build import build_stage
from videogen_jax.training.mesh import AXES, batch_shardings, check_batch, make_mesh, place, place_batch, step_shardings
from videogen_jax.training.optimizer import make_optimizer
from videogen_jax.training.parameter_paths import path_name
from videogen_jax.training.state import TrainState, init_state, make_train_step

UNET = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention": (True, True),
    "num_heads": 4,
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "remat": True,
}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_layers": 1,
    "num_heads": 4,
    "eos_token_id": 63,
    "max_positions": 8,
    "projection_dim": 64,
}
VAE = {"block_out_channels": (32, 64), "norm_num_groups": 8}
SCHEDULE = {"name": "cosine", "rescale_zero_terminal_snr": True}
SETTINGS = {
    "text": {"text_encoder": TEXT, "video_channels": (32, 64)},
    "autoencoder": {"autoencoder": VAE},
    "reference": {"unet": UNET, "schedule": SCHEDULE},
    "cascade": {
        "unet": {**UNET, "reference_attention": (False, True), "added_conditions": ("fps",)},
        "schedule": SCHEDULE,
        "resolution": 8,
        "lower_resolution": 4,
    },
    "temporal": {"upsampler": {"flow_widths": (32, 64), "refine_widths": (32, 64)}},
    "decoder": {
        "decoder": VAE,
        "discriminator": {"channels": (32, 64), "norm_num_groups": 8},
        "perceptual_weight": 0.0,
    },
    "classifier": {
        "classifier": {"num_classes": (4, 4), "widths": (32, 64), "features": 64, "num_frames": 4, "resolution": 16}
    },
}
FRAMES, SIDE, ROWS = 4, 8, 8


def make_batch(stage: str, rows: int = ROWS, side: int = SIDE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=(rows, *shape)).astype(np.float32)

    def pixels(*shape):
        return rng.integers(0, 256, (rows, *shape, 3)).astype(np.uint8)

    context = normal(5, 32)
    if stage == "text":
        return {"tokens": rng.integers(0, 64, (rows, 8)).astype(np.int32), "video": pixels(FRAMES, 8, 8)}
    if stage == "autoencoder":
        return {"images": pixels(16, 16)}
    if stage == "reference":
        return {"latents": normal(1, side, side, 4), "context": context}
    if stage == "cascade":
        lower, fps = normal(FRAMES, side // 2, side // 2, 4), np.full(rows, 8.0, np.float32)
        latents = {"latents": normal(FRAMES, side, side, 4), "reference": normal(1, side, side, 4)}
        return {**latents, "lower": lower, "context": context, "fps": fps}
    if stage == "temporal":
        return {"latents": normal(9, side, side, 4)}
    if stage == "decoder":
        return {"latents": normal(FRAMES, side, side, 4), "video": pixels(FRAMES, 2 * side, 2 * side)}
    return {"video": pixels(FRAMES, 16, 16), "labels": rng.integers(0, 4, (rows, 2)).astype(np.int32)}


def frozen_for(stage: str) -> dict[str, np.ndarray]:
    if stage == "decoder":
        return {"scaling_factor": np.float32(0.2), "shift_factor": np.float32(0.1)}
    return {"null_context": np.zeros((5, 32), np.float32)} if stage in ("reference", "cascade") else {}


def config_for(stage: str):
    config = get_base_config()
    config.stage, config.steps, config.batch_size, config.fsdp_min_size = stage, 100, ROWS, 64
    config.optimizer.warmup_steps, config.optimizer.learning_rate = 1, 1e-3
    return config


def train(stage_name: str, sizes: dict[str, int], devices=None, batch=None, settings=None, steps: int = 3):
    """Losses of the steps, the state, its shardings, and what compiles the step."""
    config = config_for(stage_name)
    stage = build_stage(stage_name, SETTINGS[stage_name] if settings is None else settings)
    mesh = make_mesh(sizes, devices)
    batch = make_batch(stage_name) if batch is None else batch
    config.batch_size = rows = len(next(iter(batch.values())))
    check_batch(config, mesh, batch)
    optimizer, frozen = make_optimizer(config.optimizer, config.steps), frozen_for(stage_name)

    def create(params):
        ema = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))

    def start(path, shape):
        # Drawn by NumPy, as XLA takes minutes to compile so many draws; nothing is zero, which would hide what lies
        # wrongly behind it.
        scale = 1.0 if path_name(path).endswith("scale") else 0.0
        rng = np.random.default_rng(len(path_name(path)) + shape.size)
        return scale + rng.normal(size=shape.shape) / np.sqrt(max(shape.size / max(shape.shape[-1:] or (1,)), 8))

    shapes = jax.eval_shape(lambda rng: init_state(stage, optimizer, rng, batch), jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(lambda p, s: np.asarray(start(p, s), s.dtype), shapes.params)
    where, frozen_where = step_shardings(config, mesh, shapes, frozen)
    step = make_train_step(stage, optimizer, config, where, frozen_where)
    state = jax.jit(create, out_shardings=where)(place(params, where.params))
    frozen = place(frozen, frozen_where)
    placed = place_batch(batch, mesh, range(rows), rows)
    assert {name: x.sharding for name, x in placed.items()} == batch_shardings(batch, mesh)
    compiled, losses = step.lower(state, frozen, placed).compile(), []
    for _ in range(steps):
        state, metrics = compiled(state, frozen, placed)
        losses.append(float(metrics["loss"]))
    return losses, state, compiled


def first_moments(state) -> dict[str, float]:
    """The norm of each parameter's mean gradient. Losses hardly show a gradient that is a multiple of what it should
    be, since Adam divides by it."""
    moments = optax.tree_utils.tree_get(state.opt_state, "mu")
    return {path_name(p): float(jnp.linalg.norm(m)) for p, m in jax.tree_util.tree_flatten_with_path(moments)[0]}


def held(tree) -> int:
    """Bytes on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def parallel(params) -> int:
    """Bytes of the parameters that heads, feed-forward layers and pairs of convolutions are made of."""
    names = [
        "to_q",
        "to_k",
        "to_v",
        "to_out_0",
        "q_proj",
        "k_proj",
        "v_proj",
        "out_proj",
        "proj",
        "net_2",
        "fc1",
        "fc2",
    ]
    names += ["conv1", "conv2", "temporal_conv1", "time_emb_proj", "features", "logits"]
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        parts = path_name(path).split("/")
        attention_of_one_head = parts[-2:][0].startswith("to_") and not any(part.startswith("attn") for part in parts)
        if parts[-1] == "kernel" and any(name in parts for name in names) and not attention_of_one_head:
            total += leaf.nbytes
    return total


def main() -> None:
    stages, *meshes = sys.argv[1:]
    found = {}
    for stage in stages.split(","):
        losses, state, _ = train(stage, {}, jax.devices()[:1])
        whole, moments = held(state.params), first_moments(state)
        result = {"losses": losses, "bytes": whole, "parallel": parallel(state.params), "meshes": {}}
        for mesh in meshes:
            sizes = dict(zip(AXES, map(int, mesh.split("x")), strict=True))
            # Frames are for one clip a device: on such a mesh the batch is smaller, and so is that of one device.
            rows = sizes["data"] * sizes["fsdp"] if sizes["frames"] > 1 else ROWS
            batch = make_batch(stage, rows)
            alone, gradients = losses, moments
            if rows != ROWS:
                alone, state, _ = train(stage, {}, jax.devices()[:1], batch)
                gradients = first_moments(state)
            on_mesh, state, _ = train(stage, sizes, None, batch)
            follow = [held(x) for x in (state.params, state.ema, state.opt_state)]
            result["meshes"][mesh] = {
                "losses": on_mesh,
                "alone": alone,
                "moments": first_moments(state),
                "moments_alone": gradients,
                "held": follow,
            }
            del state
        found[stage] = result
    print(json.dumps(found))


if __name__ == "__main__":
    main()
