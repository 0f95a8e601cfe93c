"""Hub ids, without a network: what is asked of the hub is replaced."""

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError

from videogen_jax.weights.hub import EMBEDDED, EMBEDDED_CLASSIFIER, is_id, needed_files, resolve

SD15 = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_flax_model.msgpack",
]


def test_one_format_of_each_part_is_needed_and_no_pickle():
    assert needed_files(SD15) == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }


def test_a_folder_is_itself_and_so_is_what_cannot_be_an_id(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: pytest.fail("asked the hub"))
    assert resolve(tmp_path) == tmp_path
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert str(resolve("runs/model")) == "runs/model"
    assert str(resolve("/no/such/folder")) == "/no/such/folder"


def test_ids_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    names = ("a/b", "a/b@main", "models/b", "models", "b", "/a/b", EMBEDDED, EMBEDDED_CLASSIFIER)
    assert [name for name in names if is_id(name)] == ["a/b", "a/b@main"]
    assert all(resolve(name).is_dir() for name in (EMBEDDED, EMBEDDED_CLASSIFIER))


def test_an_id_is_fetched_or_found_in_the_cache(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repo, revision=None, allow_patterns=None, local_files_only=False):
        asked.append((repo, revision, allow_patterns, local_files_only))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: SD15)
    assert resolve("owner/model@v2") == tmp_path
    assert asked.pop() == ("owner/model", "v2", sorted(needed_files(SD15)), False)

    def offline(*_, **__):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    assert resolve("owner/model") == tmp_path
    assert asked == [("owner/model", None, None, True)]


def test_neither_network_nor_copy_is_said_so(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route")

    def not_there(*_, **__):
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    with pytest.raises(ValueError, match="owner/model is no folder here, and the hub cannot be reached"):
        resolve("owner/model")

    def not_found(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # made without the response of a server

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", not_found)
    with pytest.raises(ValueError, match="neither a folder nor a model on the hub"):
        resolve("owner/model")
