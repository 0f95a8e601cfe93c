"""Exceptions of the studio."""


class Refused(Exception):
    """A request that cannot be fulfilled. The server responds with the status and `{"error": sentence}`.

    Attributes:
      status: HTTP status, 400 or above.
      sentence: what is wrong and what would be right.
      headers: extra headers of the response.
    """

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(sentence)
        self.status = status
        self.sentence = " ".join(sentence.split())
        self.headers = headers or {}


class Cancelled(Exception):
    """Raised by a job's callback to stop the pipeline."""
