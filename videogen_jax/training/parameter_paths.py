"""Paths of parameters, which the regular expressions of a config match."""

import re
from typing import Any

import jax


def compile_pattern(pattern: str, where: str) -> re.Pattern[str]:
    """Compile a regular expression of a config.

    Args:
      pattern: the regular expression.
      where: the field and its value, for the message.

    Raises:
      ValueError: it is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where} is not a regular expression: {error}") from error


def example_path(tree: Any) -> str:
    """Return the path of the largest leaf, as an example for messages."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return path_name(max(paths, key=lambda path_and_leaf: path_and_leaf[1].size)[0]) if paths else "(there are none)"


def path_name(path: tuple[Any, ...]) -> str:
    """Return a key path of a pytree as a text like `params/unet/conv_in/kernel`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)
