"""Paths of parameters, by which the rules of a config name them."""

import re
from typing import Any

import jax


def compile_pattern(pattern: str, where: str) -> re.Pattern[str]:
    """The regular expression of a config. ValueError: it is none; `where` says what was given where."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where} is no regular expression: {error}") from error


def example_path(tree: Any) -> str:
    """The path of the largest leaf, for messages."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return path_name(max(paths, key=lambda path_and_leaf: path_and_leaf[1].size)[0]) if paths else "(there are none)"


def path_name(path: tuple[Any, ...]) -> str:
    """`params/unet/conv_in/kernel` for a key path of a pytree."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
