"""Byte-pair vocabularies in CLIP's file format."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from transformers import CLIPTokenizer

from videogen_jax.shapes import world
from videogen_jax.shapes.sources import ShapesCaptionedClips
from videogen_jax.weights import tokenizer as tokenizer_lib


@pytest.fixture(scope="module")
def captions():
    return [world.sample_clip(0, i, "all").caption for i in range(400)]


@pytest.fixture(scope="module")
def folder(captions, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer_lib.train_tokenizer(captions, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_lib.load_tokenizer(folder)


def test_files_are_clips_format(folder, tokenizer):
    entries = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(entries.values()) == list(range(len(entries)))
    assert len(entries) == 512 + len(merges) - 1 + 2
    # The indices of these entries in OpenAI's file.
    assert (entries["!"], entries["a"], entries["!</w>"], entries["a</w>"]) == (0, 64, 256, 320)
    assert (entries["<|startoftext|>"], entries["<|endoftext|>"]) == (len(entries) - 2, len(entries) - 1)
    assert all("".join(merge.split(" ")) in entries for merge in merges[1:])
    plain = CLIPTokenizer.from_pretrained(str(folder))
    assert plain.model_max_length == 77
    assert plain.pad_token == plain.eos_token == "<|endoftext|>"
    assert plain("a red star")["input_ids"] == tokenizer("a red star")["input_ids"]


def test_every_word_is_one_token(tokenizer, captions):
    words = tokenizer_lib.known_words(tokenizer)
    assert set(words) == {word for caption in captions for word in caption.split()}
    ids = tokenizer_lib.tokenize(tokenizer, words)
    assert np.all(ids[:, 0] == tokenizer.bos_token_id)
    assert np.all(ids[:, 2:] == tokenizer.eos_token_id)
    assert len(set(ids[:, 1].tolist())) == len(words)


def test_captions_round_trip(tokenizer, captions):
    ids = tokenizer_lib.tokenize(tokenizer, captions)
    assert ids.shape == (len(captions), 77)
    assert ids.dtype == np.int32
    for row, caption in zip(ids, captions, strict=True):
        assert tokenizer.decode(row, skip_special_tokens=True) == caption


def test_any_text_tokenizes(tokenizer):
    text = "a naïve 日本 🙂 zebra, 42 %!"
    ids = tokenizer_lib.tokenize(tokenizer, [text])[0]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    assert np.all(tokenizer_lib.tokenize(tokenizer, [""])[0, 1:] == tokenizer.eos_token_id)
    assert tokenizer_lib.tokenize(tokenizer, []).shape == (0, 77)


def test_case_and_blanks_do_not_matter(tokenizer):
    a, b = tokenizer_lib.tokenize(tokenizer, ["A  Small\tRED circle", "a small red circle"])
    np.testing.assert_array_equal(a, b)


def test_a_long_prompt_is_cut_with_a_warning(tokenizer):
    with pytest.warns(UserWarning, match=r"1 of 2 prompts exceed 77 tokens.*'blue green'"):
        ids = tokenizer_lib.tokenize(tokenizer, ["red " * 75 + "blue green", "a star"])
    expected = tokenizer("red " * 75 + "blue green", truncation=True, max_length=77, padding="max_length")["input_ids"]
    np.testing.assert_array_equal(ids[0], expected)
    assert ids[0, 76] == tokenizer.eos_token_id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fits = tokenizer_lib.tokenize(tokenizer, ["red " * 75])
    np.testing.assert_array_equal(fits[0], ids[0])


def test_unknown_words_are_named(tokenizer):
    assert tokenizer_lib.unknown_words(tokenizer, "A small pink dog, growing on a GRAY background. pink x") == [
        "pink",
        "dog",
        ",",
        ".",
        "x",
    ]
    assert tokenizer_lib.unknown_words(tokenizer, "a large star circling clockwise on a navy background") == []


def test_a_vocabulary_without_a_word_list_knows_no_unknown_words(folder, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    public = tokenizer_lib.load_tokenizer(tmp_path)
    assert tokenizer_lib.known_words(public) == []
    # There is no tokenizer_config.json either, which holds the length: it is CLIP's, or that of the text encoder.
    for length, expected in ((77, {}), (12, {"max_length": 12})):
        named = tokenizer_lib.load_tokenizer(tmp_path, **expected)
        ids = tokenizer_lib.tokenize(named, "a star")
        assert ids.shape == (1, length)
        assert ids[0, -1] == named.convert_tokens_to_ids(tokenizer_lib.END)
    assert tokenizer_lib.unknown_words(public, "pink dog") == []


def test_word_list_survives_saving_through_transformers(tokenizer, tmp_path):
    tokenizer.save_pretrained(str(tmp_path))
    again = tokenizer_lib.load_tokenizer(tmp_path)
    assert tokenizer_lib.known_words(again) == tokenizer_lib.known_words(tokenizer)
    text = ["a large star", "pink dog"]
    np.testing.assert_array_equal(tokenizer_lib.tokenize(again, text), tokenizer_lib.tokenize(tokenizer, text))


def test_training_does_not_depend_on_the_order(captions, folder, tmp_path):
    tokenizer_lib.train_tokenizer(reversed(captions), tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_another_length(captions, tmp_path):
    tokenizer_lib.train_tokenizer(captions, tmp_path, model_max_length=20)
    assert tokenizer_lib.tokenize(tokenizer_lib.load_tokenizer(tmp_path), captions[:2]).shape == (2, 20)


def test_bad_input_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="captions must contain"):
        tokenizer_lib.train_tokenizer([], tmp_path)
    with pytest.raises(ValueError, match="model_max_length"):
        tokenizer_lib.train_tokenizer(["a"], tmp_path, model_max_length=2)
    with pytest.raises(ValueError, match="does not exist"):
        tokenizer_lib.load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"vocab\.json"):
        tokenizer_lib.load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="must be a string; got int"):
        tokenizer_lib.tokenize(tokenizer, ["a", 3])
    with pytest.raises(ValueError, match="'a star' is 2 tokens of the vocabulary; it must be one"):
        tokenizer_lib.single_tokens(tokenizer, ["star", "a star"])


def test_captioned_clips_come_in_groups_that_differ_in_their_shape_or_their_motion(tokenizer):
    source = ShapesCaptionedClips("train", 0, 40, 2, 16, tokenizer)
    captions, moves = set(), set()
    for index in range(40):
        example = source[index]
        assert example["video"].shape == (4, 2, 16, 16, 3)
        decoded = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in example["tokens"]]
        clips = [world.parse_caption(caption) for caption in decoded]
        name = "motion" if index % 2 else "shape"
        alike = {caption.replace(getattr(clip, name), name) for caption, clip in zip(decoded, clips, strict=True)}
        assert len(alike) == 1
        moves |= {clip.motion for clip in clips} if index % 2 else set()
        for caption, clip, video in zip(decoded, clips, example["video"], strict=True):
            assert not world.is_held_out(clip.colour, clip.shape, clip.motion)
            captions.add(caption)
            if name == "shape":  # a held-out shape is replaced by the shape that was drawn, which then occurs twice
                np.testing.assert_array_equal(video, example["video"][decoded.index(caption)])
    assert len(captions) > 130  # of 160, some being held out
    assert moves >= set(world.IN_PLACE)
    with pytest.raises(ValueError, match="attribute must be shape or motion; got 'size'"):
        world.similar_clips(0, 0, "train", "size")


def test_both_directions_of_circling_start_at_the_same_position():
    groups = [world.similar_clips(0, index, "all", "motion") for index in range(20)]
    for *_, one, other in groups:
        assert (one.motion, other.motion) == tuple(world.CIRCLING)
        assert dataclasses.replace(one, motion=other.motion) == other
