"""Names of models: a folder, an id on the Hugging Face hub, or a model that is part of this package."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from videogen_jax.weights.folder import INDEX_NAME
from videogen_jax.weights.tensors import WEIGHTS_NAMES

EMBEDDED = "embedded/shapes"
EMBEDDED_CLASSIFIER = "embedded/shapes_classifier"  # for the shapes Fréchet distance; not a model of videos
_EMBEDDED_MODELS = (EMBEDDED, EMBEDDED_CLASSIFIER)
_PACKAGE = Path(__file__).resolve().parents[1]
_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")
_UNUSED_PARTS = ("safety_checker", "vae_encoder", "vae_decoder", "vae_1_0")
_SETTINGS = (".json", ".txt")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-\d+\.safetensors")


def is_id(model: str | os.PathLike) -> bool:
    """Return whether a model's name is a hub id: neither an embedded model nor a path in an existing folder."""
    path = Path(model)
    is_path = str(model) in _EMBEDDED_MODELS or path.exists() or (path.parent.is_dir() and path.parent != Path())
    return not is_path and _ID.fullmatch(str(model)) is not None


def resolve(model: str | os.PathLike, file: str | None = None) -> Path:
    """Return the folder of a model, downloading it from the hub if necessary.

    Of a hub id, only the needed files are downloaded. Files in the hub's cache on disk (HF_HOME) are not downloaded
    again, and are used if there is no network.

    Args:
      model: EMBEDDED or EMBEDDED_CLASSIFIER, a folder, or a hub id such as
        "stable-diffusion-v1-5/stable-diffusion-v1-5", optionally with "@revision". A path in an existing folder is not
        a hub id. Other names are returned as paths, unchecked.
      file: the only file of the repository that is needed; None: see `needed_files`.

    Raises:
      ValueError: there is no such model on the hub, or neither a network nor a copy in the cache.
    """
    if str(model) in _EMBEDDED_MODELS:
        return _PACKAGE / model
    if not is_id(model):
        return Path(model)
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match = _ID.fullmatch(str(model))
    repo, revision = match["repo"], match["revision"]
    try:
        files = HfApi().list_repo_files(repo, revision=revision)
        if file is not None and file not in files:
            raise FileNotFoundError(file)
        wanted = [file] if file else sorted(needed_files(files))
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except FileNotFoundError as error:
        raise ValueError(f"{repo} on the hub has no file {file}") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{repo} is gated: accept its licence on huggingface.co and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repo} on the hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{model} is neither a folder nor a model on the hub that can be read") from error
    except Exception as error:  # no network, offline mode or server errors, which differ between HTTP libraries
        try:
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            raise ValueError(
                f"{model} is not a folder, and the hub cannot be reached ({type(error).__name__}); "
                f"run `hf download {repo}` with a network to use the model without one"
            ) from error


def needed_files(files: Iterable[str]) -> set[str]:
    """Select the files of a repository that a model is read from: settings, and each part's weights in one format.

    An image encoder is needed where there is no text encoder, as in Stable Video Diffusion, and where the UNet attends
    to it, as in I2VGen-XL; the folders of Stable Diffusion that have one too are known by their safety checker. A
    repository without model_index.json is one part by itself, as a motion adapter.
    """
    files = [PurePosixPath(name) for name in files]
    top = {path.name for path in files if len(path.parts) == 1}
    if INDEX_NAME not in top:
        return _needed_of_part(top)
    parts = {path.parts[0] for path in files if len(path.parts) == 2}
    unused = set(_UNUSED_PARTS)
    if "text_encoder" in parts and "safety_checker" in parts:
        unused.add("image_encoder")
    if "image_encoder" not in parts - unused:  # whose settings go along where a fine-tuned model is exported
        unused.add("feature_extractor")
    needed = {INDEX_NAME}
    for part in parts - unused:
        names = {path.name for path in files if len(path.parts) == 2 and path.parts[0] == part}
        needed |= {f"{part}/{name}" for name in _needed_of_part(names)}
    return needed


def _needed_of_part(names: set[str]) -> set[str]:
    """Of the files of one part its settings, and its weights in one format."""
    needed = {name for name in names if name.endswith(_SETTINGS) and ".index" not in name}
    weights = next((name for name in WEIGHTS_NAMES if name in names), None)
    if weights is None:
        return needed
    needed.add(weights)
    if weights.endswith(".json"):
        stem = weights.replace("safetensors.index.", "").removesuffix("json").rstrip(".")
        needed |= {name for name in names if (match := _SHARD.fullmatch(name)) and match["stem"] == stem}
    return needed
