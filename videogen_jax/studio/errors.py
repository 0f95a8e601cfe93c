"""What is answered to a request that cannot be met: a status and one sentence."""


class Refused(Exception):
    """A request that is not met.

    Attributes:
      status: of HTTP, from 400.
      sentence: what is wrong and what would be right.
      headers: that go with the answer.
    """

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(sentence)
        self.status = status
        self.sentence = " ".join(sentence.split())
        self.headers = headers or {}


class Cancelled(Exception):
    """Raised by a job's callback, to end the pipeline's run."""
