"""Export the programs of sampling, so that later processes start sooner.

    python -m videogen_jax.export_sampler --output out/aot
    python -m videogen_jax.sample --aot out/aot --prompt "a small red circle moving right slowly on a gray background"
    python -m videogen_jax.serve --aot out/aot

traces and compiles each program that a video of this config takes, and writes the programs and an index. The model,
its dtype, the batch, the size of the video, its frames, the samplers and the guidance passes are part of a program and
must be the same later; prompts, seeds, scales and numbers of steps are not.
"""

import functools
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from videogen_jax.runtime.command_line import configure_output, fail, parse_with_default

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "shapes" / "sample.py"

_CONFIG = config_flags.DEFINE_config_file("config", None, f"Sampling config; {DEFAULT_CONFIG} if not given")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write into")
_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; the embedded model if not given")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1"], "Batches that videos are to be made in, as 1,4")
_PLATFORMS = flags.DEFINE_list("platforms", None, "cpu, cuda, rocm, tpu; the one here if not given")
_PREVIEWS = flags.DEFINE_boolean("previews", True, "With the programs that the studio shows each stage with")


def main(argv: list[str]) -> None:
    del argv
    configure_output()
    try:
        batch_sizes = [int(size) if size.isdecimal() else 0 for size in _BATCH_SIZES.value]
        if not batch_sizes or min(batch_sizes) < 1:
            raise ValueError(f"--batch_sizes {','.join(_BATCH_SIZES.value)} must be whole numbers of at least 1")
        config = _CONFIG.value
        if _MODEL.value is not None:
            config.model = _MODEL.value

        from videogen_jax.sampling.command import export_programs  # after what needs no JAX

        print(export_programs(config, _OUTPUT.value, batch_sizes, _PLATFORMS.value, _PREVIEWS.value))
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped", 130)


if __name__ == "__main__":
    flags.mark_flag_as_required("output")
    app.run(main, flags_parser=functools.partial(parse_with_default, config=DEFAULT_CONFIG))
