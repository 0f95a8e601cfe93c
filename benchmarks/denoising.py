"""How far the stages of a model's cascade are off when they take noise from held-out clips of the shapes world.

    python benchmarks/denoising.py --model runs/ablations/whole/seed_0/model --output denoising.json

The errors of each clip are written, so that models can be compared clip by clip (benchmarks/experiments.py does).
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

from videogen_jax.data.loader import take
from videogen_jax.metrics.denoising import denoising_errors
from videogen_jax.runtime.files import write_atomically
from videogen_jax.shapes.latents import shapes_latents
from videogen_jax.stages.cascade import CascadeStage
from videogen_jax.weights.model_index import ModelIndex
from videogen_jax.weights.parts import load_autoencoder_config, load_stage, load_text_encoder
from videogen_jax.weights.tokenizer import tokenize

TIMESTEPS = (300, 500, 700, 900)
BATCH = 16


def measure(model: Path, cache: Path, clips: int, seed: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Stage -> timestep -> error -> its value for each clip, in the order of the clips."""
    index, text = ModelIndex.read(model), load_text_encoder(model)
    channels, width = load_autoencoder_config(model).network.latent_channels, text.network.hidden_size
    null = text.encode(text.params, jnp.asarray(tokenize(text.tokenizer, [""])))[0]
    found = {}
    for name in index.cascade:
        stage, params = load_stage(model / name, CascadeStage, channels, width)
        source = shapes_latents(
            model,
            cache_folder=str(cache),
            split="held_out",
            seed=seed,
            num_clips=clips,
            num_frames=index.num_frames,
            resolution=stage.resolution,
            lower_resolution=stage.lower_resolution,
        )
        errors = jax.jit(lambda *arguments, stage=stage: denoising_errors(stage, *arguments))
        found[name] = {str(t): {"latents": [], "change": []} for t in TIMESTEPS}
        for begin in track(range(0, clips, BATCH), description=name):
            some = np.minimum(np.arange(begin, begin + BATCH), clips - 1)  # the last fills up what is compiled
            batch = {key: jnp.asarray(value) for key, value in take(source, some).items()}
            for t in TIMESTEPS:
                keys = jax.vmap(lambda clip, t=t: jax.random.fold_in(jax.random.key(t), clip))(jnp.asarray(some))
                got = errors(params, null, batch, jnp.full(BATCH, t), keys)
                for kind, values in got.items():
                    found[name][str(t)][kind] += np.asarray(values, np.float64)[: clips - begin].tolist()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--output", type=Path, required=True, help="a .json file")
    parser.add_argument("--cache", type=Path, default=Path("runs/ablations/cache"), help="folder for encoded clips")
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    args = parser.parse_args()
    if args.clips < 1:
        parser.error(f"--clips is {args.clips}, but must be at least 1")
    try:
        found = measure(args.model, args.cache, args.clips, args.seed)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    content = json.dumps({"clips": args.clips, "seed": args.seed, "errors": found}) + "\n"
    write_atomically(args.output, lambda temporary: temporary.write_text(content))
    for name, of_stage in found.items():
        for t, errors in of_stage.items():
            print(f"{name}  t {t:>3}  " + "  ".join(f"{kind} {np.mean(v):.4f}" for kind, v in errors.items()))


if __name__ == "__main__":
    main()
