"""The words that a model knows, for hints while the user types a prompt."""

import difflib
import threading
from collections.abc import Callable, Sequence

_SUGGESTED_FOR = 20  # unknown words of a prompt; if there are more, they are not typing errors


class Vocabulary:
    """The known words, and suggestions for unknown ones. Thread-safe.

    Args:
      words: all words that the model knows; empty if it accepts any text.
      unknown: returns the words of a prompt that the model does not know.
    """

    def __init__(self, words: Sequence[str], unknown: Callable[[str], list[str]]):
        self.words = list(words)
        self._unknown = unknown
        self._lock = threading.Lock()  # a tokenizer is not thread-safe

    def unknown(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the model does not know."""
        with self._lock:
            return self._unknown(prompt)

    def suggestions(self, words: Sequence[str]) -> dict[str, list[str]]:
        """Return for each word at most 3 known words with a similar spelling, the most similar first."""
        return {word: difflib.get_close_matches(word, self.words) for word in words[:_SUGGESTED_FOR]}
