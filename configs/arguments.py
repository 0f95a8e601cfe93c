"""Arguments of config files: `key=value`, separated by commas, after the file's name and a colon.

    --config configs/webvid/cascade.py:resolution=16,hardware=v5e

`get_config(arg)` receives what stands after the colon and declares its keys to `read_arguments`. A bare value, as in
`cascade.py:16,v5e`, is taken for the first key that allows it.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any


@dataclasses.dataclass(frozen=True)
class Key:
    """One argument of a config file.

    Attributes:
      default: its value where the argument is not given.
      allowed: the values that it may have; empty for any value of the default's type.
      bare: whether the value may be given without the key.
    """

    default: Any
    allowed: tuple[Any, ...] = ()
    bare: bool = True

    def parse(self, text: str) -> Any:
        """Convert the text of a value.

        Raises:
          ValueError: the value is not allowed.
        """
        if not self.allowed:
            return type(self.default)(text)
        values = {str(value): value for value in self.allowed}
        if text not in values:
            raise ValueError(f"{text!r} is not one of {self.choices()}")
        return values[text]

    def choices(self) -> str:
        """Describe the allowed values, as in "4, 8 or 16" or "a number"."""
        if not self.allowed:
            return {int: "an integer", float: "a number", str: "a name"}[type(self.default)]
        names = [str(value) for value in self.allowed]
        return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


SEED = Key(0, bare=False)


def read_arguments(text: str, **keys: Key) -> SimpleNamespace:
    """Parse the arguments of a config file.

    Args:
      text: what stands after the colon; "" for no arguments.
      keys: the arguments that this config takes.

    Returns: the value of each key, as an attribute of its name.

    Raises:
      ValueError: an argument is unknown, given twice, or has a value that is not allowed.
    """
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            name, value = _key_of(item, keys, values), item
        if name not in keys:
            raise ValueError(f"this config has no argument {item!r}; {_usage(keys)}")
        if name in values:
            raise ValueError(f"the argument {name} is given twice, as {values[name]} and as {value}")
        try:
            values[name] = keys[name].parse(value)
        except ValueError as error:
            raise ValueError(f"the argument {name} must be {keys[name].choices()}, not {value!r}") from error
    return SimpleNamespace(**{name: values.get(name, key.default) for name, key in keys.items()})


def _key_of(value: str, keys: dict[str, Key], used: dict[str, Any]) -> str | None:
    """Find the key of a bare value: the first that allows it and is not used yet, else any that allows it."""
    matching = []
    for name, key in keys.items():
        try:
            key.parse(value)
        except ValueError:
            continue
        if key.bare:
            matching.append(name)
    unused = [name for name in matching if name not in used]
    return next(iter(unused + matching), None)


def _usage(keys: dict[str, Key]) -> str:
    if not keys:
        return "it takes none"
    return "its arguments are " + "; ".join(f"{name}: {key.choices()}" for name, key in keys.items())
