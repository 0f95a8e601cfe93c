"""HTTP routes of jobs and of uploaded reference images."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from videogen_jax.studio.clients import Client, Slots
from videogen_jax.studio.context import RequestClient, SharedStudio, Studio
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.jobs import FINISHED, Job
from videogen_jax.studio.plan import plan
from videogen_jax.studio.schemas import HEX_ID, JobBody, JobList, JobView, StageView, UploadView

MIN_EVENT_INTERVAL = 0.1  # seconds between two events of a stream
KEEP_ALIVE = 15.0  # seconds without an event after which a stream sends a comment
_CACHE_HEADERS = {"Cache-Control": "private, max-age=3600"}

router = APIRouter(prefix="/api/v1")
JobId = Annotated[str, Path(pattern=HEX_ID, description="Id of one of your jobs.")]
UploadId = Annotated[str, Path(pattern=HEX_ID, description="Id of one of your uploads.")]


@router.post("/jobs", response_model=JobView, status_code=202, tags=["jobs"], summary="Ask for a video")
async def submit(body: JobBody, studio: SharedStudio, client: RequestClient) -> JobView:
    """Queue a job. Clients are served in turn, however many jobs each of them has queued."""
    studio.jobs.check_room(client)
    job = await run_in_threadpool(plan, body, client, studio.model, studio.gallery, studio.uploads, studio.limits)
    return view(studio, studio.jobs.submit(job))


@router.get("/jobs", response_model=JobList, tags=["jobs"], summary="Your jobs")
async def jobs(studio: SharedStudio, client: RequestClient) -> JobList:
    """List the jobs that wait or run and the most recent that have ended, oldest first."""
    return JobList(jobs=[view(studio, job) for job in studio.jobs.of_client(client)])


@router.get("/jobs/{job_id}", response_model=JobView, tags=["jobs"], summary="How far a job is")
async def job(job_id: JobId, studio: SharedStudio, client: RequestClient) -> JobView:
    return view(studio, studio.jobs.get(client, job_id))


@router.delete("/jobs/{job_id}", response_model=JobView, tags=["jobs"], summary="Cancel a job")
async def cancel(job_id: JobId, studio: SharedStudio, client: RequestClient) -> JobView:
    """Cancel a job: at once if it waits, at its next step if it runs. A job that has ended is not changed."""
    job = studio.jobs.get(client, job_id)
    studio.jobs.cancel(job)
    return view(studio, job)


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`data:` lines, each a job as JSON."}},
)
async def events(job_id: JobId, studio: SharedStudio, client: RequestClient) -> Response:
    """Send the job as a server-sent event at each change, at most ten times a second, until it has ended."""
    job = studio.jobs.get(client, job_id)
    return EventStream(_events(studio, job), studio.stream_slots, client)


@router.get(
    "/jobs/{job_id}/previews/{stage}",
    tags=["jobs"],
    summary="What a stage has made so far",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/webp": {}}, "description": "An image, or a looping clip."}},
)
async def preview(job_id: JobId, stage: str, studio: SharedStudio, client: RequestClient) -> Response:
    preview = studio.jobs.preview(studio.jobs.get(client, job_id), stage)
    content = await anyio.to_thread.run_sync(preview.encoded, limiter=studio.encoding_limiter)
    return Response(content, media_type=preview.media_type, headers=_CACHE_HEADERS)


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
async def upload(request: Request, studio: SharedStudio, client: RequestClient) -> UploadView:
    """Store an image for a limited time. The body is the file itself; Content-Type and Content-Length are required."""
    with studio.upload_slots.hold(client):
        content = await request.body()
        if not content:
            raise Refused(422, "The upload is empty: send the bytes of an image.")
        stored = await anyio.to_thread.run_sync(studio.uploads.add, client, content, limiter=studio.encoding_limiter)
    height, width = stored.image.shape[:2]
    return UploadView(id=stored.id, width=width, height=height, url=f"/api/v1/uploads/{stored.id}")


@router.get(
    "/uploads/{upload_id}",
    tags=["uploads"],
    summary="A reference image that you sent",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The image."}},
)
async def uploaded(upload_id: UploadId, studio: SharedStudio, client: RequestClient) -> Response:
    stored = studio.uploads.get(client, upload_id)
    if stored is None:
        raise Refused(404, f"There is no upload {upload_id}, or no longer.")
    content = await anyio.to_thread.run_sync(stored.png, limiter=studio.encoding_limiter)
    return Response(content, media_type="image/png", headers=_CACHE_HEADERS)


class EventStream(StreamingResponse):
    """A stream of server-sent events that occupies a slot of its client until it ends, for whatever reason."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncIterator[str], slots: Slots, client: Client):
        super().__init__(lines, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._slot = slots.hold(client)
        self._slot.__enter__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.__exit__(None, None, None)


async def _events(studio: Studio, job: Job) -> AsyncIterator[str]:
    """Yield the job as an event at each change until it has ended or the server stops."""
    previous = None
    with studio.jobs.listening() as changed:
        while True:
            changed.clear()
            text = view(studio, job).model_dump_json()
            if text != previous:
                yield f"data: {text}\n\n"
                previous = text
            if job.state in FINISHED or studio.jobs.closed:
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await changed.wait()
            except TimeoutError:
                yield ": still there\n\n"
            await asyncio.sleep(MIN_EVENT_INTERVAL)


def view(studio: Studio, job: Job) -> JobView:
    """Return the current state of a job as the HTTP interface reports it."""
    with studio.jobs.locked():
        stages = []
        for stage in job.stages.values():
            url = f"/api/v1/jobs/{job.id}/previews/{stage.name}?v={stage.version}" if stage.preview else None
            stages.append(StageView(name=stage.name, step=stage.step, of=stage.of, state=stage.state, preview=url))
        current = job.stages.get(job.stage or "")
        eta = studio.jobs.eta(job)
        return JobView(
            id=job.id,
            state=job.state,
            prompt=job.prompt,
            seed=job.seed,
            settings=job.settings,
            position=studio.jobs.position(job),
            stage=job.stage,
            step=current.step if current else 0,
            of=current.of if current else 0,
            stages=stages,
            unknown_words=job.unknown_words,
            result=job.result,
            reason=job.reason,
            created=job.created,
            started=job.started,
            finished=job.finished,
            eta_seconds=None if eta is None else round(eta, 1),
        )
