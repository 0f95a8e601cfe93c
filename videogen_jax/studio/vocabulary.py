"""The words that a model knows, for hints while a prompt is typed."""

import difflib
import threading
from collections.abc import Callable, Sequence

_SUGGESTED_FOR = 20  # words of a prompt; more of them unknown is no typing error


class Vocabulary:
    """Known words and those near them.

    Args:
      words: all that the model knows; none: any text goes.
      unknown: gives the words of a prompt that are not among them.
    """

    def __init__(self, words: Sequence[str], unknown: Callable[[str], list[str]]):
        self.words = list(words)
        self._unknown = unknown
        self._lock = threading.Lock()  # a tokenizer is not to be used from two threads at once

    def unknown(self, prompt: str) -> list[str]:
        with self._lock:
            return self._unknown(prompt)

    def suggestions(self, words: Sequence[str]) -> dict[str, list[str]]:
        """For each of the words, at most 3 known ones that are spelt nearly like it, the nearest first."""
        return {word: difflib.get_close_matches(word, self.words) for word in words[:_SUGGESTED_FOR]}
