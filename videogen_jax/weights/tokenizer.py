"""Byte-pair vocabularies in CLIP's tokenizer file format: training, loading, and prompts to token ids.

The file format is that of OpenAI's CLIP tokenizer (Radford et al. 2021, arXiv 2103.00020): lower-cased text, byte-level
byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) with the suffix `</w>` on the last piece of a word. A
vocabulary trained here and that of a public checkpoint are therefore loaded by the same function.
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
_NO_LENGTH = 10**9  # transformers' tokenizers of no known length have one far above
_KNOWN_WORDS = "known_words"  # our own key in tokenizer_config.json: the words that the vocabulary was trained on


def _words(backend: Tokenizer, text: str) -> list[str]:
    """Split a text into words as CLIP does before byte-pair encoding; the words are text, not bytes."""
    text = backend.normalizer.normalize_str(text)
    return [text[begin:end] for _, (begin, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


def _learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges (Sennrich et al. 2016) until every word is one piece; each word counts once.

    Ties are broken in lexical order. The trainer of the `tokenizers` library breaks them differently from run to run,
    which changes the token ids.
    """
    spellings = [[*word[:-1], word[-1] + END_OF_WORD] for word in words]
    merges = []
    while pairs := collections.Counter(pair for pieces in spellings for pair in itertools.pairwise(pieces)):
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for pieces in spellings:
            index = 0
            while index < len(pieces) - 1:
                if (pieces[index], pieces[index + 1]) == merge:
                    pieces[index : index + 2] = ["".join(merge)]
                index += 1
    return merges


def train_tokenizer(captions: Iterable[str], folder: str | pathlib.Path, model_max_length: int = MAX_LENGTH) -> None:
    """Train a byte-pair vocabulary in which every word of the captions is one token, and write it to a folder.

    Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json. The vocabulary consists of the 256
    bytes, alone and as the end of a word, so that any text can be tokenized; the merges in the order in which they were
    learned; and the start and end tokens, the latter also used as padding. The same captions, in any order, give the
    same files.

    Args:
      captions: the training text.
      folder: created if it does not exist.
      model_max_length: length of a token sequence, including the start and end tokens; at least 3.

    Raises:
      ValueError: there are no captions, or the length is too small.
    """
    from transformers import CLIPTokenizer

    if model_max_length < 3:
        raise ValueError(f"model_max_length must be at least 3; got {model_max_length}")
    # Normalization and splitting are those of the class that will load the files.
    backend = CLIPTokenizer().backend_tokenizer
    words = sorted({word for caption in captions for word in _words(backend, caption)})
    if not words:
        raise ValueError("captions must contain at least one word to train a vocabulary on")

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


def load_tokenizer(folder: str | pathlib.Path, max_length: int = MAX_LENGTH) -> CLIPTokenizer:
    """Load a tokenizer, trained here or of a public checkpoint.

    Args:
      folder: has vocab.json and merges.txt, or tokenizer.json.
      max_length: length of a token sequence where no tokenizer_config.json gives it.

    Raises:
      ValueError: the folder or a file is missing.
    """
    from transformers import CLIPTokenizer

    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise ValueError(f"tokenizer folder {str(folder)!r} does not exist; it must have vocab.json and merges.txt")
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"tokenizer folder {str(folder)!r} has no {name}; CLIP's vocab.json and merges.txt are needed"
                )
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    if tokenizer.model_max_length > _NO_LENGTH:
        tokenizer.model_max_length = max_length
    return tokenizer


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], warn: bool = True) -> np.ndarray:
    """Tokenize prompts as the start token, the text, the end token and padding.

    As in CLIP, a prompt that is too long is truncated so that the end token still fits.

    Args:
      tokenizer: from `load_tokenizer`.
      prompts: B strings, or a single one.
      warn: whether to warn, once per call, of prompts that are truncated.

    Returns: token ids int32 `(B, L)`, with L the tokenizer's model_max_length (77 for CLIP).

    Raises:
      ValueError: a prompt is not a string.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"a prompt must be a string; got {type(prompt).__name__}")
    length = tokenizer.model_max_length
    ids = np.full((len(prompts), length), tokenizer.pad_token_id, np.int32)
    lost = []
    sequences = tokenizer(prompts, truncation=False, padding=False, verbose=False)["input_ids"] if prompts else []
    for prompt_ids, sequence in zip(ids, sequences, strict=True):
        if len(sequence) > length:
            lost.append(tokenizer.decode(sequence[length - 1 : -1]))
            sequence = [*sequence[: length - 1], tokenizer.eos_token_id]
        prompt_ids[: len(sequence)] = sequence
    if lost and warn:
        warnings.warn(
            f"{len(lost)} of {len(prompts)} prompts exceed {length} tokens and are truncated; "
            f"the first loses {lost[0]!r}",
            stacklevel=2,
        )
    return ids


def single_tokens(tokenizer: CLIPTokenizer, words: Sequence[str]) -> list[int]:
    """Return the token id of each word.

    Raises:
      ValueError: a word is not a single token of the vocabulary.
    """
    tokens = [tokenizer(word)["input_ids"][1:-1] for word in words]
    for word, ids in zip(words, tokens, strict=True):
        if len(ids) != 1:
            raise ValueError(f"{word!r} is {len(ids)} tokens of the vocabulary; it must be one")
    return [ids[0] for ids in tokens]


def known_words(tokenizer: CLIPTokenizer) -> list[str]:
    """Return the sorted words that a vocabulary of `train_tokenizer` was trained on; empty for other vocabularies."""
    return list(tokenizer.init_kwargs.get(_KNOWN_WORDS, ()))


def unknown_words(tokenizer: CLIPTokenizer, prompt: str) -> list[str]:
    """Return the prompt's distinct words, in lower case, that a vocabulary of `train_tokenizer` was not trained on.

    Empty for other vocabularies, such as OpenAI's with 49,408 entries, which was learned from unrestricted text.
    """
    known = set(known_words(tokenizer))
    if not known:
        return []
    return [word for word in dict.fromkeys(_words(tokenizer.backend_tokenizer, prompt)) if word not in known]
