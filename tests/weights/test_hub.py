"""Hub ids, without a network: calls to the hub are replaced."""

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


def test_needed_files_have_one_format_per_part_and_no_pickle():
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


def test_an_image_encoder_is_needed_where_nothing_reads_text():
    parts = ("image_encoder", "unet", "vae")
    files = [f"{part}/{name}" for part in parts for name in ("config.json", "model.fp16.safetensors")]
    files += ["model_index.json", "feature_extractor/preprocessor_config.json", "svd_xt.safetensors"]
    files = [name.replace("unet/model", "unet/diffusion_pytorch_model") for name in files]
    needed = needed_files([*files, "scheduler/scheduler_config.json"])
    assert {name.split("/")[0] for name in needed} == {*parts, "scheduler", "feature_extractor", "model_index.json"}
    assert "image_encoder/model.fp16.safetensors" in needed
    assert not any(name.startswith("image_encoder") for name in needed_files([*SD15, "image_encoder/config.json"]))


def test_folders_and_paths_resolve_to_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: pytest.fail("the hub was called"))
    assert resolve(tmp_path) == tmp_path
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert str(resolve("runs/model")) == "runs/model"
    assert str(resolve("/no/such/folder")) == "/no/such/folder"


def test_ids_are_distinguished_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    names = ("a/b", "a/b@main", "models/b", "models", "b", "/a/b", EMBEDDED, EMBEDDED_CLASSIFIER)
    assert [name for name in names if is_id(name)] == ["a/b", "a/b@main"]
    assert all(resolve(name).is_dir() for name in (EMBEDDED, EMBEDDED_CLASSIFIER))


def test_an_id_is_downloaded_or_read_from_the_cache(tmp_path, monkeypatch):
    calls = []

    def snapshot_download(repo, revision=None, allow_patterns=None, local_files_only=False):
        calls.append((repo, revision, allow_patterns, local_files_only))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: SD15)
    assert resolve("owner/model@v2") == tmp_path
    assert calls.pop() == ("owner/model", "v2", sorted(needed_files(SD15)), False)

    def offline(*_, **__):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    assert resolve("owner/model") == tmp_path
    assert calls == [("owner/model", None, None, True)]


def test_a_model_that_cannot_be_found_is_an_error(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route")

    def not_there(*_, **__):
        raise LocalEntryNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", offline)
    with pytest.raises(ValueError, match="owner/model is not a folder, and the hub cannot be reached"):
        resolve("owner/model")

    def not_found(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # constructed without a server response

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", not_found)
    with pytest.raises(ValueError, match="neither a folder nor a model on the hub"):
        resolve("owner/model")
