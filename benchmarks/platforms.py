"""The flag `--platform`, which has to be read before JAX is imported. Import this module first."""

import argparse
import os

PLATFORMS = {"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"}


def add_platform(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--platform", choices=PLATFORMS, help="what computes; left out, what JAX finds")


def choose_platform() -> None:
    """Sets JAX up for the `--platform` of the command line."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_platform(early)
    asked, _ = early.parse_known_args()
    if asked.platform:
        os.environ["JAX_PLATFORMS"] = PLATFORMS[asked.platform]


choose_platform()
