"""The objects that all routes share."""

import dataclasses
from typing import Annotated

import anyio
from fastapi import Depends, Request

from videogen_jax.studio.clients import COOKIE, Client, Slots, client_of
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.jobs import Jobs
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import Model
from videogen_jax.studio.uploads import Uploads
from videogen_jax.studio.worker import Worker


@dataclasses.dataclass
class Studio:
    """A running studio.

    Attributes:
      stream_slots: one for each open event stream.
      upload_slots: one for each upload in progress.
      encoding_limiter: bounds how many images are decoded or encoded at once.
    """

    limits: Limits
    model: Model
    jobs: Jobs
    gallery: Gallery
    uploads: Uploads
    stream_slots: Slots
    upload_slots: Slots
    worker: Worker
    encoding_limiter: anyio.CapacityLimiter

    def close(self) -> None:
        """End the event streams, and the worker as soon as its running program returns."""
        self.jobs.close()


def _studio(request: Request) -> Studio:
    return request.app.state.studio


def _client(request: Request) -> Client:
    return client_of(request.client and request.client.host, request.cookies.get(COOKIE))


SharedStudio = Annotated[Studio, Depends(_studio)]
RequestClient = Annotated[Client, Depends(_client)]
