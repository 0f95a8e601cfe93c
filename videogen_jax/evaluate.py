"""Measure a model: its videos against their prompts and against real ones, and its parts against ground truth.

    python -m videogen_jax.evaluate --config configs/shapes/evaluate.py --model runs/shapes/model \
        --output out/evaluation

writes metrics.json, report.html, contact_sheet.png, failures.png and the videos into the output folder and prints a
table. Started again it continues where it was stopped. Any field of the config can be set from the command line:
`--config.prompts=16`. For models at the paper's scale: configs/webvid/evaluate_ucf101.py and
configs/webvid/evaluate_msrvtt.py.
"""

from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from videogen_jax.runtime.command_line import fail, parse

CONFIG = config_flags.DEFINE_config_file("config", None, "Evaluation config, e.g. configs/shapes/evaluate.py")
MODEL = flags.DEFINE_string("model", None, "Model folder")
OUTPUT = flags.DEFINE_string("output", "out/evaluation", "Folder for the results")
SPLIT = flags.DEFINE_enum("split", "held_out", ["train", "held_out"], "Which captions and clips of a rendered world")


def main(argv: list[str]) -> None:
    del argv
    from videogen_jax.metrics.evaluation import evaluate, print_table
    from videogen_jax.runtime import compilation_cache, host_memory
    from videogen_jax.runtime.backend import check_backend

    compilation_cache.enable()
    host_memory.keep_freed_memory()
    try:
        check_backend()
        print_table(evaluate(CONFIG.value, MODEL.value, OUTPUT.value, SPLIT.value))
    except (ValueError, OSError) as error:
        fail(error)
    for name in ("metrics.json", "report.html"):
        print(Path(OUTPUT.value) / name)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "model"])
    app.run(main, flags_parser=parse)
