"""One step of the 2D UNet beside diffusers' `UNet2DConditionModel` in PyTorch: same weights, same inputs, float32.

    python benchmarks/unet_image.py [--size sd15] [--backward] [--compile] [--rounds 5] [--output unet_image.json]

PyTorch runs in its better memory format on a CPU, channels last. Outputs are compared first. `sd15` is the UNet of
Stable Diffusion 1.5 (860 M parameters, latents of 64x64), `small` one of a fiftieth of that. FLOPs are those of
PyTorch's counter, so that both sides are credited with the same work.
"""

import argparse
import gc
import tempfile
from pathlib import Path

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_side
from side_by_side import in_turns, machine, relative_difference, report, write_json

from videogen_jax.runtime.host_memory import keep_freed_memory
from videogen_jax.weights.parts import load_reference

SIZES = {
    "sd15": ({"cross_attention_dim": 768, "attention_head_dim": 8}, 64),
    "small": ({"cross_attention_dim": 256, "attention_head_dim": 4, "block_out_channels": (64, 128, 192, 192)}, 32),
}
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="sd15")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    fields, side = SIZES[asked.size]
    keep_freed_memory(one_heap=asked.backward)  # as the entry points do; it holds for both sides
    torch.manual_seed(0)
    theirs = diffusers.UNet2DConditionModel(sample_size=side, **fields).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / "unet", max_shard_size="1GB")
        diffusers.PNDMScheduler(**SCHEDULER).save_pretrained(Path(folder) / "scheduler")
        stage, params = load_reference(Path(folder))[:2]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((asked.batch, side, side, 4), np.float32)
    context = rng.standard_normal((asked.batch, 77, fields["cross_attention_dim"]), np.float32)
    time = np.full(asked.batch, 500.0, np.float32)

    theirs = theirs.to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(x).movedim(-1, 1).to(memory_format=torch.channels_last)
    arguments = (inputs, torch.from_numpy(time), torch.from_numpy(context))
    params = jax.device_put(params)
    ours = (params, jnp.asarray(x)[:, None], jnp.asarray(time), jnp.asarray(context))

    def torch_way(model):
        return torch_side.step_of(model, arguments, asked.backward)

    flops = torch_side.count_flops(torch_way(theirs))
    theirs.zero_grad()
    forward = jax.jit(stage.predict)
    with torch.no_grad():
        expected = theirs(*arguments).sample.movedim(1, -1).numpy()
    difference = relative_difference(np.asarray(forward(*ours)[:, 0]), expected)
    print(f"largest difference of the outputs: {difference:.1e} of the largest value")
    step = forward
    if asked.backward:
        step = jax.jit(jax.grad(lambda *given: jnp.mean(jnp.square(stage.predict(*given)))))
    gc.collect()
    ways = {"PyTorch eager": torch_way(theirs), "videogen_jax": lambda: step(*ours)}
    if asked.compile:
        ways["PyTorch compiled"] = torch_way(torch.compile(theirs))
    kind = "forward and backward" if asked.backward else "forward"
    rows = report(f"{asked.size}, batch {asked.batch}, {kind}", in_turns(ways, asked.rounds), "PyTorch eager", flops)
    allowed = machine()
    bound = flops / allowed["gflops"] / 1e9
    ratio = rows["videogen_jax"]["median"] / bound
    print(
        f"matrix products at {allowed['gflops']:.0f} GFLOP/s would take {bound:.3f} s; videogen_jax {ratio:.2f} of that"
    )
    figures = {"flops": flops, "difference": difference, "machine": allowed, "times": rows}
    write_json(asked.output, {"size": asked.size, "batch": asked.batch, "kind": kind, **figures})


if __name__ == "__main__":
    main()
