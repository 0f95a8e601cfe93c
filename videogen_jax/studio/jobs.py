"""Jobs: what is asked for, how far it is, and whose turn it is."""

import asyncio
import collections
import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.studio.clients import Client
from videogen_jax.studio.errors import Cancelled, Refused
from videogen_jax.studio.fair_queue import FairQueue
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.previews import Preview

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
OVER = frozenset({DONE, FAILED, CANCELLED})
_DURATIONS = 8  # of the last jobs, for the estimate


@dataclasses.dataclass
class Stage:
    """How far a stage of a job is: waiting, running or done; `version` counts its previews."""

    name: str
    of: int
    step: int = 0
    state: str = "waiting"
    preview: Preview | None = None
    version: int = 0


@dataclasses.dataclass(eq=False)
class Job:
    """One video in the making. Changed by `Jobs` alone, under its lock, once it is submitted.

    Attributes:
      client: whose it is.
      request: resolved; None when the job is over, so that its reference image is not held.
      settings: frames, fps, guidance_scale, reference_guidance_scale, steps and reference as the client sent them.
      unknown_words: those of the prompt that the model does not know.
      stages: in their order, by name.
      base_fps: frames a second of the cascade's clips.
      frames: those that are decoded so far, uint8 `(n, H, W, 3)`.
      result: the gallery's id of the finished video.
      reason: why it failed, a sentence.
      created, started, finished: seconds since 1970.
    """

    client: Client
    request: SamplingRequest | None
    settings: dict[str, Any]
    unknown_words: list[str]
    stages: dict[str, Stage]
    base_fps: float
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    created: float = dataclasses.field(default_factory=time.time)
    state: str = QUEUED
    stage: str | None = None
    cancelling: bool = False
    frames: np.ndarray | None = None
    result: str | None = None
    reason: str | None = None
    started: float | None = None
    finished: float | None = None

    def __post_init__(self):
        (self.prompt,), (self.seed,), self.fps = self.request.prompts, self.request.seed, self.request.fps


class Jobs:
    """All jobs: those that wait, the one that runs, and the newest that are over.

    Requests come from the event loop's thread, progress from the worker's.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._jobs: dict[str, Job] = {}  # in the order of arrival
        self._queue: FairQueue[Job] = FairQueue()
        self._running: Job | None = None
        self._durations: collections.deque[float] = collections.deque(maxlen=_DURATIONS)
        self._closed = False
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    # For requests.

    def submit(self, job: Job) -> Job:
        """Put a job in the queue. Raises Refused: 429 if its client has too many there, 503 if it is full."""
        with self._lock:
            self.check_room(job.client)
            self._jobs[job.id] = job
            self._queue.push(job.client, job)
            self._filled.notify()
        self._tell()
        return job

    def check_room(self, client: Client) -> None:
        """Raises Refused where `submit` would."""
        limits, later = self.limits, {"Retry-After": "10"}
        with self._lock:
            if self._closed:
                raise Refused(503, "The server is stopping.", later)
            if self._queue.count(client=client) >= limits.queued_per_client:
                most = limits.queued_per_client
                raise Refused(429, f"You have {most} jobs waiting, and more are not taken: wait or cancel one.", later)
            if self._queue.count(address=client.address) >= limits.queued_per_address:
                most = limits.queued_per_address
                raise Refused(429, f"Your address has {most} jobs waiting, and more are not taken: wait.", later)
            if len(self._queue) >= limits.queued:
                raise Refused(503, f"The queue is full: {limits.queued} jobs are waiting. Try again later.", later)

    def get(self, client: Client, job_id: str) -> Job:
        """The client's job of that id. Raises Refused (404) if it has none."""
        job = self._jobs.get(job_id)
        if job is None or job.client != client:
            raise Refused(404, f"There is no job {job_id}; of jobs that are over the newest {self._kept} are kept.")
        return job

    def of_client(self, client: Client) -> list[Job]:
        """A client's jobs, the oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.client == client]

    def cancel(self, job: Job) -> None:
        """Takes a job out of the queue, or has the worker leave it at its next step; nothing if it is over."""
        with self._lock:
            job.cancelling = True
            if self._queue.remove(job):
                self._end(job, CANCELLED)
        self._tell()

    def position(self, job: Job) -> int | None:
        """The number of jobs before it, the one that runs included; None if it does not wait."""
        with self._lock:
            if job.state != QUEUED:
                return None
            return self._queue.order().index(job) + (self._running is not None)

    def eta(self, job: Job) -> float | None:
        """Seconds until it is done, as the last jobs took on average; None if there were none, or it is over."""
        with self._lock:
            if job.state in OVER or not self._durations:
                return None
            mean = sum(self._durations) / len(self._durations)
            now = time.time()
            left = 0.0 if self._running is None else max(0.0, self._running.started + mean - now)
            if job is self._running:
                return left
            return left + (self._queue.order().index(job) + 1) * mean

    def preview(self, job: Job, stage: str) -> Preview:
        """What a stage has made. Raises Refused (404) if there is no such stage, or nothing to see of it."""
        with self._lock:
            if stage not in job.stages:
                raise Refused(404, f"The job has no such stage; its stages are {', '.join(job.stages)}.")
            preview = job.stages[stage].preview
        if preview is None:
            raise Refused(404, f"There is no preview of {stage}: not yet, or no longer.")
        return preview

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing changes inside this block."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running event loop, set at every change of any job until the block ends."""
        event = asyncio.Event()
        with self._lock:
            self._listeners[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            with self._lock:
                del self._listeners[event]

    # For the worker.

    def next(self, timeout: float | None = None) -> Job | None:
        """Waits for a job, which then runs; None if none comes in time, or the jobs are closed."""
        with self._lock:
            self._filled.wait_for(lambda: len(self._queue) or self._closed, timeout)
            if self._closed or not len(self._queue):
                return None
            job = self._running = self._queue.pop()
            job.state, job.started = RUNNING, time.time()
        self._tell()
        return job

    def progress(self, job: Job, name: str, step: int, of: int, preview: np.ndarray | None) -> None:
        """What the pipeline's callback hears, of the one example of a job. Raises Cancelled if the job is to end."""
        with self._lock:
            if job.cancelling or self._closed:
                raise Cancelled
            stage = job.stages.setdefault(name, Stage(name, of))
            if name != job.stage:
                for earlier in job.stages.values():
                    if earlier is stage:
                        break
                    earlier.state, earlier.step = "done", earlier.of
            job.stage = name
            stage.step, stage.of = step, of
            stage.state = "done" if step >= of else "running"
            if preview is not None:
                pixels = preview[0]
                if name == "decode":
                    pixels = pixels if job.frames is None else np.concatenate([job.frames, pixels])
                    job.frames = pixels
                fps = job.fps if name in ("temporal", "decode") else job.base_fps
                stage.preview, stage.version = Preview(pixels, fps), stage.version + 1
        self._tell()

    def done(self, job: Job, result: str) -> None:
        """The job's video is in the gallery."""
        with self._lock:
            self._durations.append(time.time() - job.started)
            for stage in job.stages.values():
                stage.state, stage.step = "done", stage.of
            job.result = result
            self._end(job, DONE)
        self._tell()

    def failed(self, job: Job, reason: str) -> None:
        with self._lock:
            job.reason = reason
            self._end(job, FAILED)
        self._tell()

    def cancelled(self, job: Job) -> None:
        with self._lock:
            self._end(job, CANCELLED)
        self._tell()

    def fail_all(self, reason: str) -> None:
        """Ends all jobs that wait: they will never run."""
        with self._lock:
            while len(self._queue):
                job = self._queue.pop()
                job.reason = reason
                self._end(job, FAILED)
        self._tell()

    def close(self) -> None:
        """Ends the streams and the worker's run: the server stops."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
        self._tell()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def _kept(self) -> int:
        return self.limits.jobs_kept

    def _end(self, job: Job, state: str) -> None:
        job.state, job.finished = state, time.time()
        job.request = job.frames = None
        if self._running is job:
            self._running = None
        over = [other for other in self._jobs.values() if other.state in OVER]
        for other in sorted(over, key=lambda other: other.finished)[: -self._kept]:
            del self._jobs[other.id]
        # A page may still be showing the previews: those of the newest stay, as far as memory is set aside for them.
        room = self.limits.preview_bytes
        for other in sorted(over, key=lambda other: other.finished, reverse=True):
            size = sum(stage.preview.nbytes for stage in other.stages.values() if stage.preview)
            room -= size
            if room < 0:
                for stage in other.stages.values():
                    stage.preview = None

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners.items())
        for event, loop in listeners:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(event.set)
