"""The thread that owns the pipeline: it loads the model, then runs one job at a time."""

import errno
import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from videogen_jax.sampling.request import SamplingRequest
from videogen_jax.studio.errors import Cancelled
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.jobs import Job, Jobs
from videogen_jax.studio.model import Model, Pipeline

if TYPE_CHECKING:
    from videogen_jax.sampling.generate import Callback
    from videogen_jax.sampling.pipeline import VideoGenOutput

_WARM_UP_PROMPT = "a video"  # the warm-up prompt of a model without example prompts


class Worker(threading.Thread):
    """Runs jobs until `jobs` is closed. An exception in a job becomes its reason, and the next job runs.

    It is a daemon thread, so that the process can exit while XLA compiles, which cannot be interrupted.
    """

    def __init__(self, model: Model, jobs: Jobs, gallery: Gallery):
        super().__init__(name="studio-worker", daemon=True)
        self.model, self.jobs, self.gallery = model, jobs, gallery

    def run(self) -> None:
        try:
            self.model.prepare(self._warm_up)
        except Cancelled:
            return
        except Exception as error:  # without its model the server stays up to report the reason
            logging.exception("The model cannot be served")
            reason = reason_of(error)
            self.model.fail(reason)
            self.jobs.fail_all(f"The model could not be loaded: {reason}")
            return
        print(f"The model {self.model.source.name} is ready", flush=True)
        while not self.jobs.closed:
            job = self.jobs.next()
            if job is not None:
                self._run_job(job)

    def _warm_up(self, pipeline: Pipeline) -> None:
        def callback(stage: str, step: int, of: int, preview: np.ndarray | None) -> None:
            if self.jobs.closed:
                raise Cancelled
            self.model.detail = (
                f"a first video is being made, so that all programs are compiled: {stage}, {step} of {of}"
            )

        reference = None
        if self.model.index.reads_reference and not self.model.draws_reference:
            reference = np.full((*self.model.index.size, 3), 128, np.uint8)
        prompt = next(iter(self.model.examples), _WARM_UP_PROMPT)
        _sample(pipeline, SamplingRequest.from_keywords(prompt, reference=reference), callback)

    def _run_job(self, job: Job) -> None:
        def callback(stage: str, step: int, of: int, preview: np.ndarray | None) -> None:
            self.jobs.progress(job, stage, step, of, preview)

        try:
            result = self.gallery.add(_sample(self.model.pipeline, job.request, callback))
        except Cancelled:
            self.jobs.cancelled(job)
        except Exception as error:  # a failed job must not stop the server
            logging.exception("Job %s failed", job.id)
            self.jobs.failed(job, reason_of(error))
        else:
            self.jobs.done(job, result.id)


def _sample(pipeline: Pipeline, request: SamplingRequest, callback: "Callback") -> "VideoGenOutput":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unknown words are reported with the job
        return pipeline.sample(request, callback, previews=True)


def reason_of(error: BaseException) -> str:
    """Explain an error to the client in one sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return "The server ran out of memory: ask for fewer frames, or have it serve a smaller model."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The server's disk is full, so the video could not be kept: delete some results and try again."
    if isinstance(error, OSError):
        return f"The server could not write the video: {error.strerror or text}."
    if isinstance(error, ValueError) and text:
        return text
    return f"Something went wrong on the server ({type(error).__name__}): {text or 'its log tells more'}"[:500]
