"""Jobs: requests for videos, their progress, and the order in which they run."""

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
FINISHED = frozenset({DONE, FAILED, CANCELLED})
_DURATIONS = 8  # the number of recent jobs whose mean duration is the estimate


@dataclasses.dataclass
class Stage:
    """The progress of one stage of a job.

    Attributes:
      name: name of the stage.
      of: number of steps.
      step: steps completed.
      state: "waiting", "running" or "done".
      preview: its latest preview.
      version: number of previews so far.
    """

    name: str
    of: int
    step: int = 0
    state: str = "waiting"
    preview: Preview | None = None
    version: int = 0


@dataclasses.dataclass(eq=False)
class Job:
    """A request for one video. Once submitted, it is modified by `Jobs` only, under its lock.

    Attributes:
      client: its owner.
      request: the resolved request; None once the job has ended, which frees its reference image.
      settings: frames, fps, guidance_scale, reference_guidance_scale, steps and reference as the client sent them.
      unknown_words: words of the prompt that the model does not know.
      stages: by name, in the order in which they run.
      base_fps: frames per second of the cascade's clips.
      state: one of QUEUED, RUNNING, DONE, FAILED, CANCELLED.
      stage: name of the stage that runs.
      cancelling: whether the job must stop at its next step.
      frames: the frames decoded so far, uint8 `(n, H, W, 3)`.
      result: the gallery's id of the finished video.
      reason: why it failed, in one sentence.
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
    """All waiting jobs, the running one, and the most recent that have ended. Thread-safe.

    The event loop's thread submits and queries jobs, the worker's thread runs them.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._jobs: dict[str, Job] = {}  # in order of arrival
        self._queue: FairQueue[Job] = FairQueue()
        self._running: Job | None = None
        self._durations: collections.deque[float] = collections.deque(maxlen=_DURATIONS)
        self._closed = False
        self._lock = threading.RLock()
        self._job_added = threading.Condition(self._lock)
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    # Called by the routes.

    def submit(self, job: Job) -> Job:
        """Put a job in the queue.

        Raises:
          Refused: 429 if too many jobs of its client or address are waiting, 503 if the queue is full.
        """
        with self._lock:
            self.check_room(job.client)
            self._jobs[job.id] = job
            self._queue.push(job.client, job)
            self._job_added.notify()
        self._notify()
        return job

    def check_room(self, client: Client) -> None:
        """Check that `submit` would accept a job of the client; raises as `submit`."""
        limits, retry = self.limits, {"Retry-After": "10"}
        with self._lock:
            if self._closed:
                raise Refused(503, "The server is stopping.", retry)
            if self._queue.count(client=client) >= limits.queued_per_client:
                limit = limits.queued_per_client
                raise Refused(429, f"You have {limit} jobs waiting, and more are not taken: wait or cancel one.", retry)
            if self._queue.count(address=client.address) >= limits.queued_per_address:
                limit = limits.queued_per_address
                raise Refused(429, f"Your address has {limit} jobs waiting, and more are not taken: wait.", retry)
            if len(self._queue) >= limits.queued:
                raise Refused(503, f"The queue is full: {limits.queued} jobs are waiting. Try again later.", retry)

    def get(self, client: Client, job_id: str) -> Job:
        """Return a job of a client.

        Raises:
          Refused: 404 if the client has no such job.
        """
        job = self._jobs.get(job_id)
        if job is None or job.client != client:
            raise Refused(
                404, f"There is no job {job_id}; of jobs that are over the newest {self.limits.jobs_kept} are kept."
            )
        return job

    def of_client(self, client: Client) -> list[Job]:
        """Return the jobs of a client, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if job.client == client]

    def cancel(self, job: Job) -> None:
        """Cancel a job: at once if it is waiting, at its next step if it is running; no-op if it has ended."""
        with self._lock:
            job.cancelling = True
            if self._queue.remove(job):
                self._end(job, CANCELLED)
        self._notify()

    def position(self, job: Job) -> int | None:
        """Return the number of jobs ahead, including the running one; None if the job is not waiting."""
        with self._lock:
            if job.state != QUEUED:
                return None
            return self._queue.order().index(job) + (self._running is not None)

    def eta(self, job: Job) -> float | None:
        """Estimate the seconds until a job is done from the mean duration of recent jobs.

        Returns None if there are no recent jobs, or the job has ended.
        """
        with self._lock:
            if job.state in FINISHED or not self._durations:
                return None
            mean = sum(self._durations) / len(self._durations)
            now = time.time()
            remaining = 0.0 if self._running is None else max(0.0, self._running.started + mean - now)
            if job is self._running:
                return remaining
            return remaining + (self._queue.order().index(job) + 1) * mean

    def preview(self, job: Job, stage: str) -> Preview:
        """Return the latest preview of a stage.

        Raises:
          Refused: 404 if there is no such stage, or it has no preview.
        """
        with self._lock:
            if stage not in job.stages:
                raise Refused(404, f"The job has no such stage; its stages are {', '.join(job.stages)}.")
            preview = job.stages[stage].preview
        if preview is None:
            raise Refused(404, f"There is no preview of {stage}: not yet, or no longer.")
        return preview

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock: no job changes inside this block."""
        with self._lock:
            yield

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Yield an event of the running event loop that is set at every change of any job until the block ends."""
        event = asyncio.Event()
        with self._lock:
            self._listeners[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            with self._lock:
                del self._listeners[event]

    # Called by the worker.

    def next(self, timeout: float | None = None) -> Job | None:
        """Wait for the next job and mark it as running.

        Args:
          timeout: seconds; None waits indefinitely.

        Returns:
          the job; None after the timeout, or once `close` has been called.
        """
        with self._lock:
            self._job_added.wait_for(lambda: len(self._queue) or self._closed, timeout)
            if self._closed or not len(self._queue):
                return None
            job = self._running = self._queue.pop()
            job.state, job.started = RUNNING, time.time()
        self._notify()
        return job

    def progress(self, job: Job, name: str, step: int, of: int, preview: np.ndarray | None) -> None:
        """Record the progress of a job; the arguments after the job are those of the pipeline's callback.

        Args:
          job: the running job.
          name: name of the stage.
          step, of: steps completed, and the number of steps.
          preview: uint8 `(1, H, W, 3)` or `(1, T, H, W, 3)`, or None.

        Raises:
          Cancelled: the job must stop.
        """
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
        self._notify()

    def done(self, job: Job, result: str) -> None:
        """Mark a job as done.

        Args:
          job: the running job.
          result: the gallery's id of its video.
        """
        with self._lock:
            self._durations.append(time.time() - job.started)
            for stage in job.stages.values():
                stage.state, stage.step = "done", stage.of
            job.result = result
            self._end(job, DONE)
        self._notify()

    def failed(self, job: Job, reason: str) -> None:
        """Mark a job as failed; the reason is one sentence."""
        with self._lock:
            job.reason = reason
            self._end(job, FAILED)
        self._notify()

    def cancelled(self, job: Job) -> None:
        """Mark a job as cancelled."""
        with self._lock:
            self._end(job, CANCELLED)
        self._notify()

    def fail_all(self, reason: str) -> None:
        """Mark all waiting jobs as failed."""
        with self._lock:
            while len(self._queue):
                job = self._queue.pop()
                job.reason = reason
                self._end(job, FAILED)
        self._notify()

    def close(self) -> None:
        """End the event streams and the worker, because the server is stopping."""
        with self._lock:
            self._closed = True
            self._job_added.notify_all()
        self._notify()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def _end(self, job: Job, state: str) -> None:
        job.state, job.finished = state, time.time()
        job.request = job.frames = None
        if self._running is job:
            self._running = None
        ended = [other for other in self._jobs.values() if other.state in FINISHED]
        for other in sorted(ended, key=lambda other: other.finished)[: -self.limits.jobs_kept]:
            del self._jobs[other.id]
        # A page may still display previews, so those of the newest jobs stay as far as they fit into the limit.
        room = self.limits.preview_bytes
        for other in sorted(ended, key=lambda other: other.finished, reverse=True):
            size = sum(stage.preview.nbytes for stage in other.stages.values() if stage.preview)
            room -= size
            if room < 0:
                for stage in other.stages.values():
                    stage.preview = None

    def _notify(self) -> None:
        with self._lock:
            listeners = list(self._listeners.items())
        for event, loop in listeners:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, so nothing is waiting
                loop.call_soon_threadsafe(event.set)
