"""What the routes share."""

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
    """A running studio. `streams` and `uploading` count what is open; `making` bounds what is encoded at once."""

    limits: Limits
    model: Model
    jobs: Jobs
    gallery: Gallery
    uploads: Uploads
    streams: Slots
    uploading: Slots
    worker: Worker
    making: anyio.CapacityLimiter

    def close(self) -> None:
        """Ends the event streams, and the worker as soon as its program lets it."""
        self.jobs.close()


def _studio(request: Request) -> Studio:
    return request.app.state.studio


def _client(request: Request) -> Client:
    return client_of(request.client and request.client.host, request.cookies.get(COOKIE))


Shared = Annotated[Studio, Depends(_studio)]
Asker = Annotated[Client, Depends(_client)]
