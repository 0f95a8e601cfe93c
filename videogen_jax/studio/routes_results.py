"""HTTP routes of results: the gallery and its files."""

import re
from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from videogen_jax.studio.context import SharedStudio, Studio
from videogen_jax.studio.gallery import DERIVED_FILES, Result
from videogen_jax.studio.schemas import HEX_ID, PinBody, ResultList, ResultView

router = APIRouter(prefix="/api/v1/results", tags=["results"])
ResultId = Annotated[str, Path(pattern=HEX_ID, description="Id of a result.")]
Download = Annotated[int, Query(ge=0, le=1, description="1: have the browser save it, named after the prompt.")]
_MEDIA_TYPES = {
    "video.mp4": "video/mp4",
    "video.gif": "image/gif",
    "sheet.png": "image/png",
    "reference.png": "image/png",
    "poster.png": "image/png",
    "recipe.json": "application/json",
}
# The files of a result never change.
_CACHE_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.get("", response_model=ResultList, summary="The gallery, newest first")
async def results(
    studio: SharedStudio,
    limit: Annotated[int, Query(ge=1, le=100, description="Results in one answer.")] = 24,
    before: Annotated[str | None, Query(pattern=HEX_ID, description="Only those that are older than this one.")] = None,
) -> ResultList:
    page, next_before = studio.gallery.page(limit, before)
    return ResultList(results=[view(result) for result in page], next=next_before)


@router.get("/{result_id}", response_model=ResultView, summary="A result")
async def result(result_id: ResultId, studio: SharedStudio) -> ResultView:
    return view(studio.gallery.get(result_id))


@router.delete("/{result_id}", response_model=ResultView, summary="Delete a result")
async def delete(result_id: ResultId, studio: SharedStudio) -> ResultView:
    """Delete a result and its files permanently."""
    result = studio.gallery.get(result_id)
    await run_in_threadpool(studio.gallery.delete, result_id)
    return view(result)


@router.patch("/{result_id}", response_model=ResultView, summary="Pin a result")
async def pin(result_id: ResultId, body: PinBody, studio: SharedStudio) -> ResultView:
    """Pin or unpin a result. A pinned result is not deleted to make room for newer ones."""
    return view(await run_in_threadpool(studio.gallery.pin, result_id, body.pinned))


@router.get(
    "/{result_id}/frames/{number}.png",
    summary="A frame, exactly as it was made",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "The frame."}},
)
async def frame(
    result_id: ResultId,
    number: Annotated[int, Path(ge=0, le=100_000, description="From 0.")],
    studio: SharedStudio,
    download: Download = 0,
) -> Response:
    content = await run_in_threadpool(studio.gallery.frame_png, result_id, number)
    headers = dict(_CACHE_HEADERS)
    if download:
        name = file_name(studio.gallery.get(result_id), f"-frame-{number}.png")
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(content, media_type="image/png", headers=headers)


def _add_file_route(name: str, summary: str) -> None:
    @router.get(
        f"/{{result_id}}/{name}",
        name=name,
        operation_id=name.replace(".", "_"),
        summary=summary,
        response_class=FileResponse,
        responses={200: {"content": {_MEDIA_TYPES[name]: {}}, "description": "The file."}},
    )
    async def file(result_id: ResultId, studio: SharedStudio, download: Download = 0) -> FileResponse:
        return await _file(studio, result_id, name, bool(download))


for _name, _summary in (
    ("video.mp4", "The video, its recipe in its metadata"),
    ("video.gif", "The video as a gif, of at most 50 frames a second"),
    ("sheet.png", "All frames on one sheet"),
    ("reference.png", "The image that the video started from"),
    ("poster.png", "The first frame"),
    ("recipe.json", "All that the video follows from"),
):
    _add_file_route(_name, _summary)


async def _file(studio: Studio, result_id: str, name: str, download: bool) -> FileResponse:
    result = studio.gallery.get(result_id)
    limiter = studio.encoding_limiter if name in DERIVED_FILES else None
    path = await anyio.to_thread.run_sync(studio.gallery.file, result_id, name, limiter=limiter)
    saved_name = None
    if download:
        stem, suffix = name.split(".")
        saved_name = file_name(result, f".{suffix}" if stem == "video" else f"-{stem}.{suffix}")
    return FileResponse(path, media_type=_MEDIA_TYPES[name], filename=saved_name, headers=_CACHE_HEADERS)


def file_name(result: Result, ending: str) -> str:
    """Return a name for a downloaded file, of letters, digits and dashes: `a-red-circle-3.mp4`."""
    words = re.findall("[a-z0-9]+", result.recipe["prompt"].lower())
    return f"{'-'.join(words)[:60].strip('-') or 'video'}-{result.recipe['seed']}{ending}"


def view(result: Result) -> ResultView:
    """Return a result as the HTTP interface reports it."""
    url = f"/api/v1/results/{result.id}"
    return ResultView(
        id=result.id,
        created=result.created,
        prompt=result.recipe["prompt"],
        seed=result.recipe["seed"],
        recipe=result.recipe,
        frames=result.frames,
        fps=result.fps,
        width=result.width,
        height=result.height,
        pinned=result.pinned,
        video=f"{url}/video.mp4",
        gif=f"{url}/video.gif",
        sheet=f"{url}/sheet.png",
        reference=f"{url}/reference.png",
        poster=f"{url}/poster.png",
    )
