"""Jobs and the images that are sent for them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from videogen_jax.studio.clients import Client, Slots
from videogen_jax.studio.context import Asker, Shared, Studio
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.jobs import OVER, Job
from videogen_jax.studio.plan import plan
from videogen_jax.studio.schemas import HEX_ID, JobBody, JobList, JobView, StageView, UploadView

EVENTS_APART = 0.1  # seconds, at least, between two events of a stream
KEEP_ALIVE = 15.0  # seconds after which a silent stream says that it is there
_KEEP = {"Cache-Control": "private, max-age=3600"}

router = APIRouter(prefix="/api/v1")
JobId = Annotated[str, Path(pattern=HEX_ID, description="Id of one of your jobs.")]
UploadId = Annotated[str, Path(pattern=HEX_ID, description="Id of one of your uploads.")]


@router.post("/jobs", response_model=JobView, status_code=202, tags=["jobs"], summary="Ask for a video")
async def submit(body: JobBody, studio: Shared, client: Asker) -> JobView:
    """The job waits its turn: clients are served one after the other, whatever each has asked for."""
    studio.jobs.check_room(client)
    job = await run_in_threadpool(plan, body, client, studio.model, studio.gallery, studio.uploads, studio.limits)
    return view(studio, studio.jobs.submit(job))


@router.get("/jobs", response_model=JobList, tags=["jobs"], summary="Your jobs")
async def jobs(studio: Shared, client: Asker) -> JobList:
    """Those that wait or run, and the newest that are over, the oldest first."""
    return JobList(jobs=[view(studio, job) for job in studio.jobs.of_client(client)])


@router.get("/jobs/{job_id}", response_model=JobView, tags=["jobs"], summary="How far a job is")
async def job(job_id: JobId, studio: Shared, client: Asker) -> JobView:
    return view(studio, studio.jobs.get(client, job_id))


@router.delete("/jobs/{job_id}", response_model=JobView, tags=["jobs"], summary="Cancel a job")
async def cancel(job_id: JobId, studio: Shared, client: Asker) -> JobView:
    """One that waits is cancelled at once, one that runs at its next step. One that is over stays as it is."""
    found = studio.jobs.get(client, job_id)
    studio.jobs.cancel(found)
    return view(studio, found)


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`data:` lines, each a job as JSON."}},
)
async def events(job_id: JobId, studio: Shared, client: Asker) -> Response:
    """Server-sent events: the job at each change, at most ten times a second, until it is over."""
    found = studio.jobs.get(client, job_id)
    return EventStream(_events(studio, found), studio.streams, client)


@router.get(
    "/jobs/{job_id}/previews/{stage}",
    tags=["jobs"],
    summary="What a stage has made so far",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/webp": {}}, "description": "An image, or a looping clip."}},
)
async def preview(job_id: JobId, stage: str, studio: Shared, client: Asker) -> Response:
    found = studio.jobs.preview(studio.jobs.get(client, job_id), stage)
    content = await anyio.to_thread.run_sync(found.encoded, limiter=studio.making)
    return Response(content, media_type=found.media_type, headers=_KEEP)


@router.post(
    "/uploads",
    response_model=UploadView,
    status_code=201,
    tags=["uploads"],
    summary="Send a reference image",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(request: Request, studio: Shared, client: Asker) -> UploadView:
    """The body is the file itself, with its Content-Type and Content-Length. It is kept for a while, for you alone."""
    with studio.uploading.hold(client):
        content = await request.body()
        if not content:
            raise Refused(422, "The upload is empty: send the bytes of an image.")
        kept = await anyio.to_thread.run_sync(studio.uploads.add, client, content, limiter=studio.making)
    height, width = kept.image.shape[:2]
    return UploadView(id=kept.id, width=width, height=height, url=f"/api/v1/uploads/{kept.id}")


@router.get(
    "/uploads/{upload_id}",
    tags=["uploads"],
    summary="A reference image that you sent",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The image."}},
)
async def uploaded(upload_id: UploadId, studio: Shared, client: Asker) -> Response:
    found = studio.uploads.get(client, upload_id)
    if found is None:
        raise Refused(404, f"There is no upload {upload_id}, or no longer.")
    content = await anyio.to_thread.run_sync(found.png, limiter=studio.making)
    return Response(content, media_type="image/png", headers=_KEEP)


class EventStream(StreamingResponse):
    """An event stream that counts among its client's open ones until it ends, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncIterator[str], streams: Slots, client: Client):
        super().__init__(lines, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._counted = streams.hold(client)
        self._counted.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._counted.__exit__(None, None, None)


async def _events(studio: Studio, job: Job) -> AsyncIterator[str]:
    sent = None
    with studio.jobs.listening() as changed:
        while True:
            changed.clear()
            text = view(studio, job).model_dump_json()
            if text != sent:
                yield f"data: {text}\n\n"
                sent = text
            if job.state in OVER or studio.jobs.closed:
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await changed.wait()
            except TimeoutError:
                yield ": still there\n\n"
            await asyncio.sleep(EVENTS_APART)


def view(studio: Studio, job: Job) -> JobView:
    """A job as it is now."""
    with studio.jobs.locked():
        stages = []
        for stage in job.stages.values():
            url = f"/api/v1/jobs/{job.id}/previews/{stage.name}?v={stage.version}" if stage.preview else None
            stages.append(StageView(name=stage.name, step=stage.step, of=stage.of, state=stage.state, preview=url))
        now = job.stages.get(job.stage or "")
        eta = studio.jobs.eta(job)
        return JobView(
            id=job.id,
            state=job.state,
            prompt=job.prompt,
            seed=job.seed,
            settings=job.settings,
            position=studio.jobs.position(job),
            stage=job.stage,
            step=now.step if now else 0,
            of=now.of if now else 0,
            stages=stages,
            unknown_words=job.unknown_words,
            result=job.result,
            reason=job.reason,
            created=job.created,
            started=job.started,
            finished=job.finished,
            eta_seconds=None if eta is None else round(eta, 1),
        )
