"""Checks of a training config that need neither its data nor its network."""

from typing import Any


def check_at_least(config: Any, minimum: int, *names: str) -> None:
    """Raise ValueError, naming the field, if one of the fields is below `minimum`."""
    for name in names:
        if config[name] < minimum:
            raise ValueError(f"config.{name} is {config[name]}; it must be at least {minimum}")


def check_retention(config: Any) -> None:
    """Raise ValueError, naming the field, if `checkpoint_every`, `keep_checkpoints` or `keep_every` cannot work."""
    check_at_least(config, 1, "checkpoint_every", "keep_checkpoints")
    check_at_least(config, 0, "keep_every")
    if config.keep_every % config.checkpoint_every:
        raise ValueError(
            f"config.keep_every is {config.keep_every}, which is not a multiple of config.checkpoint_every, "
            f"{config.checkpoint_every}; only steps that have a checkpoint can be kept"
        )
