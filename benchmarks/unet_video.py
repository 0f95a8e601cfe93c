"""One step of the video UNet beside diffusers' `UNet3DConditionModel` and `UNetMotionModel` in PyTorch, float32.

    python benchmarks/unet_video.py [--against 3d|motion] [--size small|medium|sd15] [--backward] [--compile]

The networks share widths, heads, frames and the weights of the spatial layers, but not the temporal layers, which each
design has of its own; so time per FLOP is what compares. That the same is computed is seen first: with the temporal
layers' last weights at zero all of them are the 2D UNet on every frame. FLOPs are counted on each side: those of
PyTorch by its own counter, ours from the traced program.
"""

import argparse
import copy
import gc
import statistics
import tempfile
from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_side
from side_by_side import in_turns, machine, relative_difference, report, write_json

from videogen_jax.models.unet import UNet, inflate_unet
from videogen_jax.runtime.host_memory import keep_freed_memory
from videogen_jax.scaling.flops import count_flops
from videogen_jax.weights.parts import load_reference

# (widths, side of the latents, width of the text); heads are of 64 channels, as UNet3DConditionModel has them.
SIZES = {
    "sd15": ((320, 640, 1280, 1280), 32, 768),
    "medium": ((128, 256, 512, 512), 32, 512),
    "small": ((64, 128, 256, 256), 32, 256),
}
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True}
FRAMES, TOKENS = 16, 77


def build_theirs(kind: str, widths: tuple[int, ...], text: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Their video UNet, its temporal layers the identity, and the 2D UNet that it is on every frame."""
    heads = [width // 64 for width in widths]
    image = diffusers.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=widths,
        cross_attention_dim=text,
        attention_head_dim=heads,
        use_linear_projection=True,
    )
    if kind == "motion":
        motion = diffusers.MotionAdapter(block_out_channels=widths, motion_num_attention_heads=8)
        video = diffusers.UNetMotionModel.from_unet2d(image, motion)
    else:
        video = diffusers.UNet3DConditionModel(block_out_channels=widths, cross_attention_dim=text)
        missing = set(image.state_dict()) - set(video.load_state_dict(image.state_dict(), strict=False).missing_keys)
        if missing != set(image.state_dict()):
            raise RuntimeError("the 3D UNet does not hold the layers of the 2D UNet")
    for name, module in video.named_modules():
        ends = ("transformer_in.proj_out", "conv4.3") if kind == "3d" else ()
        temporal = "temp_attentions" in name or "motion_modules" in name
        if name.endswith(ends) if not temporal else name.endswith("proj_out"):
            for parameter in module.parameters():
                torch.nn.init.zeros_(parameter)
    return video.eval(), image.eval()


def build_ours(image: torch.nn.Module, example: tuple) -> tuple[UNet, dict]:
    """Our video UNet with the weights of the 2D UNet."""
    with tempfile.TemporaryDirectory() as folder:
        image.save_pretrained(Path(folder) / "unet", max_shard_size="1GB")
        diffusers.PNDMScheduler(**SCHEDULER).save_pretrained(Path(folder) / "scheduler")
        stage, params = load_reference(Path(folder))[:2]
    network = stage.network.clone(temporal="make_a_video")
    fresh = jax.jit(network.init)(jax.random.key(0), *example)["params"]
    return network, jax.device_put(inflate_unet(params, fresh))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=("3d", "motion"), default="3d")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    widths, side, text = SIZES[asked.size]
    keep_freed_memory(one_heap=asked.backward)  # as the entry points do; it holds for both sides
    torch.manual_seed(0)
    theirs, image = build_theirs(asked.against, widths, text)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((asked.batch, FRAMES, side, side, 4), np.float32)
    context = rng.standard_normal((asked.batch, TOKENS, text), np.float32)
    time = np.full(asked.batch, 500.0, np.float32)
    ours = (jnp.asarray(x), jnp.asarray(time), jnp.asarray(context))
    network, params = build_ours(image, ours)
    del image

    formats = {"PyTorch eager": theirs, "PyTorch channels last": torch_side.channels_last(copy.deepcopy(theirs))}
    text_states = torch.from_numpy(context)
    if asked.against == "motion":  # it takes the text once for each frame
        text_states = text_states.repeat_interleave(FRAMES, 0)
    arguments = (torch.from_numpy(x).movedim(-1, 1), torch.from_numpy(time), text_states)

    def torch_way(model):
        return torch_side.step_of(model, arguments, asked.backward)

    def predict(params, *given):
        return network.apply({"params": params}, *given)

    with torch.no_grad():
        expected = theirs(*arguments).sample.movedim(1, -1).numpy()
    forward = jax.jit(predict)
    difference = relative_difference(np.asarray(forward(params, *ours)), expected)
    print(f"largest difference of the outputs, temporal layers at rest: {difference:.1e} of the largest value")
    step = predict
    if asked.backward:
        step = jax.grad(lambda *given: jnp.mean(jnp.square(predict(*given))))
    flops = {"videogen_jax": count_flops(step, params, *ours)}
    their_flops = torch_side.count_flops(torch_way(theirs))
    theirs.zero_grad()
    step = jax.jit(step)
    gc.collect()
    ways = {name: torch_way(model) for name, model in formats.items()}
    ways["videogen_jax"] = lambda: step(params, *ours)
    if asked.compile:
        ways["PyTorch compiled"] = torch_way(torch.compile(theirs))
    flops |= {name: their_flops for name in ways if name not in flops}
    kind = "forward and backward" if asked.backward else "forward"
    times = in_turns(ways, asked.rounds)
    better = min(formats, key=lambda name: statistics.median(times[name]))
    print(f"FLOPs: {flops['videogen_jax']:.3e} of videogen_jax, {their_flops:.3e} of {type(theirs).__name__}")
    title = f"{asked.against}, {asked.size}, {FRAMES} frames, batch {asked.batch}, {kind}"
    rows = report(title, times, better)
    per_flop = {name: [t / flops[name] * 1e12 for t in values] for name, values in times.items()}
    per_flop_rows = report("the same, seconds per TFLOP", per_flop, better)
    allowed = machine()
    bound = flops["videogen_jax"] / allowed["gflops"] / 1e9
    ratio = rows["videogen_jax"]["median"] / bound
    print(
        f"matrix products at {allowed['gflops']:.0f} GFLOP/s would take {bound:.3f} s; videogen_jax {ratio:.2f} of that"
    )
    figures = {"flops": flops, "difference": difference, "machine": allowed, "times": rows, "per_tflop": per_flop_rows}
    write_json(asked.output, {"against": asked.against, "size": asked.size, "kind": kind, **figures})


if __name__ == "__main__":
    main()
