"""Byte-pair vocabularies in CLIP's tokenizer file format: training, loading, and prompts to token ids.

The file format is that of OpenAI's CLIP tokenizer (Radford et al. 2021, arXiv 2103.00020): lower-cased text, byte-level
byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) with the suffix `</w>` on the last piece of a word. So a
vocabulary trained here and the one of a public checkpoint are loaded by the same call.
"""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START = "<|startoftext|>"
END = "<|endoftext|>"
END_OF_WORD = "</w>"
MAX_LENGTH = 77
_KNOWN_WORDS = "known_words"  # our own key in tokenizer_config.json: the words that the vocabulary was trained on


def _words(backend: Tokenizer, text: str) -> list[str]:
    """Cut a text into words as CLIP does, before byte pairs are formed; readable, not yet byte-encoded."""
    text = backend.normalizer.normalize_str(text)
    return [text[begin:end] for _, (begin, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


def _learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016) that make every word one piece; each word counts once.

    The trainer of the `tokenizers` library breaks ties in an order that changes from run to run, and with it the
    numbers of the tokens; here the pair that sorts first is taken.
    """
    spelled = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while pairs := collections.Counter(pair for pieces in spelled for pair in itertools.pairwise(pieces)):
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for pieces in spelled:
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == merge:
                    pieces[at : at + 2] = ["".join(merge)]
                at += 1
    return merges


def train_tokenizer(captions: Iterable[str], folder: str | pathlib.Path, model_max_length: int = MAX_LENGTH) -> None:
    """Train a byte-pair vocabulary on captions until every word of theirs is one token, and write it to `folder`.

    Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json. The vocabulary begins with the
    256 bytes, alone and as the end of a word, so that any text can be tokenized; then the merges in the order in which
    they were learnt; then the start and the end token, the latter also the padding. The same captions, in any
    order, give the same files.

    model_max_length: length of a token sequence, start and end token included; at least 3.
    Raises ValueError when there are no captions or the length is too small.
    """
    from transformers import CLIPTokenizer

    if model_max_length < 3:
        raise ValueError(f"model_max_length must be at least 3; got {model_max_length}")
    # Normalisation and splitting are taken from the class that will load the files.
    backend = CLIPTokenizer().backend_tokenizer
    words = sorted({word for caption in captions for word in _words(backend, caption)})
    if not words:
        raise ValueError("captions must hold at least one word to train a vocabulary on")

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(byte_level.alphabet())  # by code point, which is the order of OpenAI's file
    merges = _learn_merges(["".join(piece for piece, _ in byte_level.pre_tokenize_str(word)) for word in words])

    pieces = [*alphabet, *(letter + END_OF_WORD for letter in alphabet), *map("".join, merges), START, END]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}

    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": model_max_length,
        "do_lower_case": True,
        "add_prefix_space": False,
        **special,
        _KNOWN_WORDS: words,
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("vocab.json", vocabulary),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
    ):
        text = json.dumps(content, ensure_ascii=False, indent=None if name == "vocab.json" else 2)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    merge_lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(merge_lines) + "\n", encoding="utf-8")


def load_tokenizer(folder: str | pathlib.Path) -> CLIPTokenizer:
    """Load a tokenizer folder, trained here or of a public checkpoint. Raises ValueError when files are missing."""
    from transformers import CLIPTokenizer

    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"tokenizer folder {str(folder)!r} does not exist; it should hold vocab.json and merges.txt")
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"tokenizer folder {str(folder)!r} has no {name}; CLIP's vocab.json and merges.txt are needed"
                )
    return CLIPTokenizer.from_pretrained(str(folder))


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], warn: bool = True) -> np.ndarray:
    """Token ids int32 (B, L) of B prompts, L = the tokenizer's model_max_length (77 for CLIP).

    A row is the start token, the prompt, the end token, then padding. As CLIP does, a prompt that is too long is cut
    so that the end token still fits; unless `warn` is False one warning a call says what was cut. Raises ValueError for
    a prompt that is not a string.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string; got {type(prompt).__name__}")
    length = tokenizer.model_max_length
    ids = np.full((len(prompts), length), tokenizer.pad_token_id, np.int32)
    cut = []
    sequences = tokenizer(prompts, truncation=False, padding=False, verbose=False)["input_ids"] if prompts else []
    for row, sequence in zip(ids, sequences, strict=True):
        if len(sequence) > length:
            cut.append(tokenizer.decode(sequence[length - 1 : -1]))
            sequence = [*sequence[: length - 1], tokenizer.eos_token_id]
        row[: len(sequence)] = sequence
    if cut and warn:
        warnings.warn(
            f"{len(cut)} of {len(prompts)} prompts exceed {length} tokens and are truncated; "
            f"the first loses {cut[0]!r}",
            stacklevel=2,
        )
    return ids


def single_tokens(tokenizer: CLIPTokenizer, words: Sequence[str]) -> list[int]:
    """The token id of each word. Raises ValueError for a word that is not one token of the vocabulary."""
    tokens = [tokenizer(word)["input_ids"][1:-1] for word in words]
    for word, ids in zip(words, tokens, strict=True):
        if len(ids) != 1:
            raise ValueError(f"{word!r} is {len(ids)} tokens of the vocabulary; it must be one")
    return [ids[0] for ids in tokens]


def known_words(tokenizer: CLIPTokenizer) -> list[str]:
    """The words that a vocabulary made by `train_tokenizer` was trained on, sorted; empty for any other."""
    return list(tokenizer.init_kwargs.get(_KNOWN_WORDS, ()))


def unknown_words(tokenizer: CLIPTokenizer, prompt: str) -> list[str]:
    """The prompt's words, lower-cased and each once, that a vocabulary made by `train_tokenizer` was not trained on.

    Empty for any other vocabulary, such as the 49,408 entries of OpenAI's, which were learnt from open text.
    """
    known = set(known_words(tokenizer))
    if not known:
        return []
    return [word for word in dict.fromkeys(_words(tokenizer.backend_tokenizer, prompt)) if word not in known]
