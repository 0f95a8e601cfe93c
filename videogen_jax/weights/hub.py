"""Models named by a folder, by an id on the Hugging Face hub, or as one that comes with this package."""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from videogen_jax.weights.tensors import WEIGHTS_NAMES

EMBEDDED = "embedded/shapes"
EMBEDDED_CLASSIFIER = "embedded/shapes_classifier"  # of the shapes Fréchet distance; no model of videos
_WITH_PACKAGE = (EMBEDDED, EMBEDDED_CLASSIFIER)
_PACKAGE = Path(__file__).resolve().parents[1]
_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")
_WITHOUT_USE = ("safety_checker", "feature_extractor", "image_encoder", "vae_encoder", "vae_decoder", "vae_1_0")
_SETTINGS = (".json", ".txt")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-\d+\.safetensors")


def is_id(model: str | os.PathLike) -> bool:
    """Whether a model's name is a hub id: not one that comes with the package, and no path in a folder that exists."""
    path = Path(model)
    is_path = str(model) in _WITH_PACKAGE or path.exists() or (path.parent.is_dir() and path.parent != Path())
    return not is_path and _ID.fullmatch(str(model)) is not None


def resolve(model: str | os.PathLike) -> Path:
    """The folder of a model.

    Args:
      model: EMBEDDED or EMBEDDED_CLASSIFIER, which come with the package; a folder; or a hub id such as
        "stable-diffusion-v1-5/stable-diffusion-v1-5", with "@revision" if wanted. A path in a folder that exists is no
        hub id.
        Of a hub id the files that are needed are downloaded, or taken from the hub's cache on disk (HF_HOME) where
        they are there already or there is no network.

    Raises:
      ValueError: there is no such folder, no such model on the hub, or no network and no copy in the cache.
    """
    if str(model) in _WITH_PACKAGE:
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
        return Path(snapshot_download(repo, revision=revision, allow_patterns=sorted(needed_files(files))))
    except GatedRepoError as error:
        raise ValueError(
            f"{repo} is gated: accept its licence on huggingface.co and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{repo} on the hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"{model} is neither a folder nor a model on the hub that can be read") from error
    except Exception as error:  # no network, the hub's offline mode or its trouble: its HTTP libraries differ in these
        try:
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, OSError):
            raise ValueError(
                f"{model} is no folder here, and the hub cannot be reached ({type(error).__name__}); with a network, "
                f"`hf download {repo}` puts it where it is found without one"
            ) from error


def needed_files(files: Iterable[str]) -> set[str]:
    """Of a repository's files those that a model is read from: settings, and the weights of each part in one format."""
    files = [PurePosixPath(name) for name in files]
    wanted = {str(path) for path in files if len(path.parts) == 1 and path.name == "model_index.json"}
    for part in {path.parts[0] for path in files if len(path.parts) == 2} - set(_WITHOUT_USE):
        names = {path.name for path in files if len(path.parts) == 2 and path.parts[0] == part}
        wanted |= {f"{part}/{name}" for name in names if name.endswith(_SETTINGS) and ".index" not in name}
        weights = next((name for name in WEIGHTS_NAMES if name in names), None)
        if weights is None:
            continue
        wanted.add(f"{part}/{weights}")
        if weights.endswith(".json"):
            stem = weights.replace("safetensors.index.", "").removesuffix("json").rstrip(".")
            shards = (name for name in names if (match := _SHARD.fullmatch(name)) and match["stem"] == stem)
            wanted |= {f"{part}/{name}" for name in shards}
    return wanted
