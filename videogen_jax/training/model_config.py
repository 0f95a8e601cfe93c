"""The `model` section of a training config: which of its fields were set, and which stand at their defaults."""

from typing import Any

from ml_collections import ConfigDict, FieldReference


class DefaultField(FieldReference):
    """A field that stands at the default of the class it configures, until a config file or the command line sets it.

    Args:
      default: the class's default, or None.
      field_type: type of the values that the field takes; `object` for any.
    """

    def __init__(self, default: Any, field_type: type):
        super().__init__(default, field_type)
        self.is_set = False

    def set(self, value: Any, type_safe: bool = True) -> None:
        super().set(value, type_safe)
        self.is_set = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.is_set = state["is_set"]


def explicit_fields(section: ConfigDict) -> dict[str, Any]:
    """Leave out what stands at its default, so that a stage is built, and exported, from what was set alone.

    A section that shows all fields is then the same stage, with the same `config.json`, as one that names only those
    that it sets, and a default is known to its class alone.
    """
    fields = {}
    for name, value in section.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            fields[name] = explicit_fields(value)
        elif not isinstance(value, DefaultField) or value.is_set:
            fields[name] = section[name]
    return fields
