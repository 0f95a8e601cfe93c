"""Exported programs: a folder of them, written once and read by every process that starts.

A folder holds a file for each program, as `jax.export` serializes it, and `index.json`, which says what they are for.
What is stored is StableHLO, not machine code: XLA still compiles it, or finds it in the compilation cache.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import jax
import jax.export

from videogen_jax.diffusion.guidance import GuidanceScales
from videogen_jax.diffusion.samplers import SamplerState
from videogen_jax.runtime.executables import Executables
from videogen_jax.runtime.version import __version__
from videogen_jax.sampling.programs import Programs
from videogen_jax.stages.cascade import Conditioning
from videogen_jax.stages.i2vgen_xl import I2VGenConditioning, ReferenceViews
from videogen_jax.stages.image_to_video import ImageInputs
from videogen_jax.stages.reference import Prompts
from videogen_jax.stages.text_and_reference import ReferenceConditioning

INDEX = "index.json"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

_TUPLES = (SamplerState, Conditioning, GuidanceScales, Prompts)  # among the arguments and results of programs
_PUBLIC_TUPLES = (I2VGenConditioning, ImageInputs, ReferenceConditioning, ReferenceViews)
for _kind in (*_TUPLES, *_PUBLIC_TUPLES):
    jax.export.register_namedtuple_serialization(_kind, serialized_name=f"videogen_jax.{_kind.__name__}")


def platform() -> str:
    """What `jax.export` calls the platform that programs run on here: "cpu", "cuda", "rocm" or "tpu"."""
    return jax.export.default_export_platform()


@dataclasses.dataclass(frozen=True)
class StoredPrograms:
    """A folder of programs.

    Attributes:
      fingerprint, dtype: of the model that they were made for; see `VideoGenModel`.
      platforms: that they run on.
      files: each program's file and the SHA-256 of its content, by the `repr` of its key.
      jax, version: releases of JAX and of this package that wrote it.
    """

    folder: Path
    fingerprint: str
    dtype: str
    platforms: tuple[str, ...]
    files: Mapping[str, tuple[str, str]]
    jax: str
    version: str

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Self:
        """Reads the index. ValueError: there is none, or it lacks a field."""
        path = Path(folder) / INDEX
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder} holds no exported programs: there is no {INDEX}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        names = [field.name for field in dataclasses.fields(cls) if field.name != "folder"]
        missing = [name for name in names if not isinstance(content, dict) or name not in content]
        if missing:
            raise ValueError(f"{path} needs the field {', '.join(missing)}")
        fields = {name: content[name] for name in names}
        return cls(Path(folder), **fields | {"platforms": tuple(content["platforms"])})

    def check(self, fingerprint: str, dtype: str) -> None:
        """Raises ValueError, naming the field, unless the programs are a model's with these values, and run here."""
        given = {"version": __version__, "fingerprint": fingerprint, "dtype": dtype}
        for name, value in given.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{self.folder / INDEX}: {name} is {getattr(self, name)}, but here it is {value}: export anew"
                )
        if platform() not in self.platforms:
            raise ValueError(
                f"{self.folder / INDEX}: platforms are {', '.join(self.platforms)}, but here it is {platform()}"
            )

    def load(self, key: tuple) -> jax.export.Exported | None:
        """The program of a key, or None where the folder has none. ValueError: its file cannot be read."""
        if repr(key) not in self.files:
            return None
        name, digest = self.files[repr(key)]
        path = self.folder / name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:  # the reader of damaged bytes raises all sorts of errors
            raise ValueError(f"{path} is not what was exported: export anew")
        try:
            return jax.export.deserialize(bytearray(content))
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} cannot be read with JAX {jax.__version__}: {error}") from error


class ExportingPrograms(Programs):
    """Programs that are exported as they are prepared, and compiled from what is exported.

    Args:
      platforms: those that the programs must run on.
      executables: where what is compiled is kept.
    """

    def __init__(self, platforms: Sequence[str], executables: Executables | None = None):
        super().__init__(executables=executables)
        self.platforms = self.check(platforms)
        self._exported: dict[tuple, jax.export.Exported] = {}

    @staticmethod
    def check(platforms: Sequence[str]) -> tuple[str, ...]:
        """The platforms. ValueError: one of them is unknown, or there are none."""
        unknown = [name for name in platforms if name not in PLATFORMS]
        if unknown or not platforms:
            raise ValueError(f"platforms must be some of {', '.join(PLATFORMS)}, not {', '.join(unknown) or 'none'}")
        return tuple(platforms)

    def _find(self, key: tuple, args: tuple) -> None:
        """Nothing: every program has to be traced to be exported."""

    def _trace(self, key: tuple, function: Callable, args: tuple, donate: tuple[int, ...]) -> jax.stages.Traced:
        program = self._named(key, function)
        exported = jax.export.export(jax.jit(program, donate_argnums=donate), platforms=self.platforms)(*args)
        self._exported[key] = exported
        return super()._trace(key, exported.call if platform() in self.platforms else function, args, donate)

    def write(self, folder: str | os.PathLike, fingerprint: str, dtype: str) -> Path:
        """Writes all that was exported, for a model with this fingerprint and dtype, and the index last of all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for key, exported in self._exported.items():
            name = f"{key[0]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:8]}.bin"
            content = exported.serialize()
            (folder / name).write_bytes(content)
            files[repr(key)] = name, hashlib.sha256(content).hexdigest()
        content = {
            "fingerprint": fingerprint,
            "dtype": dtype,
            "platforms": list(self.platforms),
            "jax": jax.__version__,
            "version": __version__,
            "files": files,
        }
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return folder
