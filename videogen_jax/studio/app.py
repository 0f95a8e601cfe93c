"""The studio as an ASGI application."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from videogen_jax.runtime.version import __version__
from videogen_jax.studio import routes_jobs, routes_model, routes_results
from videogen_jax.studio.api_page import api_page
from videogen_jax.studio.clients import Slots
from videogen_jax.studio.context import Studio
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.jobs import Jobs
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import Model
from videogen_jax.studio.schemas import Problem
from videogen_jax.studio.security import Gate
from videogen_jax.studio.uploads import Uploads
from videogen_jax.studio.worker import Worker

PAGE = Path(__file__).with_name("page")
API_STYLE = Path(__file__).with_name("api_page.css")
_DESCRIPTION = "Asks for videos, follows how they are made, and fetches them."


def create_app(
    model: Model,
    gallery: Gallery,
    limits: Limits | None = None,
    token: str | None = None,
) -> FastAPI:
    """Build the application. Its worker thread starts when the application does.

    Args:
      model: the model to serve; the worker loads it.
      gallery: where finished videos are stored.
      limits: bounds on requests, queue and memory; the defaults if None.
      token: the secret that every request must send. If None, none is needed, but only requests addressed to a
        loopback name of this machine are accepted.

    Returns:
      the application; its `state.studio` is the `Studio` that the routes share.
    """
    limits = limits or Limits()
    jobs = Jobs(limits)
    studio = Studio(
        limits,
        model,
        jobs,
        gallery,
        Uploads(limits),
        Slots("event streams", limits.streams_per_client, limits.streams_per_address, limits.streams),
        Slots("uploads", limits.uploading_per_client, limits.uploading_per_address, limits.uploading),
        Worker(model, jobs, gallery),
        anyio.CapacityLimiter(limits.encoders),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        studio.worker.start()
        yield
        studio.close()

    app = FastAPI(
        title="VideoGen studio",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's own documentation pages load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": Problem, "description": "One sentence: what is wrong, and what would be right."}},
    )
    app.state.studio = studio
    for routes in (routes_model, routes_jobs, routes_results):
        app.include_router(routes.router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/api", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()))

    @app.get("/api.css", include_in_schema=False)
    async def documentation_style() -> FileResponse:
        return FileResponse(API_STYLE)

    app.mount("/static", StaticFiles(directory=PAGE))
    app.add_middleware(Gate, limits=limits, token=token)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


async def _refused(_: Request, error: Refused) -> JSONResponse:
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    if isinstance(error.__cause__, Refused):  # raised by `Gate` while FastAPI was reading the body
        return await _refused(request, error.__cause__)
    sentences = {
        404: "There is nothing at this address; /api lists what there is.",
        405: f"{request.method} is not possible at this address; /api lists what is.",
        400: "The body cannot be read: it must be JSON.",
    }
    sentence = sentences.get(error.status_code, str(error.detail))
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"error": sentence_of(error)}, 422)


def sentence_of(error: RequestValidationError) -> str:
    """Describe the first error of an invalid request in one sentence that names the field."""
    first = error.errors()[0]
    kind, location = first["type"], first["loc"]
    if kind == "json_invalid":
        return "The body cannot be read: it must be JSON."
    field = ".".join(map(str, location[1:])) or "The body"
    if kind == "extra_forbidden":
        return f"{field} is not a field of this request."
    if kind == "missing":
        return f"{field} is missing."
    if kind == "string_pattern_mismatch":
        return f"{field} is not an id: ids are 16 hexadecimal digits."
    message = first["msg"]
    return f"{field}: {message[:1].lower()}{message[1:]}."
