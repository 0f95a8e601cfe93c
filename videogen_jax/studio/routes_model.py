"""HTTP routes of the model: its properties, its state and the words that it knows."""

import anyio
from fastapi import APIRouter, Response

from videogen_jax.studio.context import SharedStudio
from videogen_jax.studio.plan import check_prompt
from videogen_jax.studio.schemas import Health, ModelView, PromptBody, PromptChecked

router = APIRouter()


@router.get("/healthz", response_model=Health, tags=["model"], summary="Whether the server is up and its model ready")
async def health(studio: SharedStudio) -> Health:
    """Return the status of the model. Needs no token."""
    return Health(status=studio.model.status, detail=studio.model.detail)


@router.get("/api/v1/model", response_model=ModelView, tags=["model"], summary="The model that is served")
async def model(studio: SharedStudio, response: Response) -> ModelView:
    """Describe the model: its settings, the limits on requests, and how far it is loaded."""
    return studio.model.view(studio.limits)


@router.post(
    "/api/v1/prompts/check", response_model=PromptChecked, tags=["model"], summary="Which words the model knows"
)
async def check(body: PromptBody, studio: SharedStudio) -> PromptChecked:
    """Find the words of a prompt that the model does not know, and known words of similar spelling."""
    prompt, words = check_prompt(body.prompt, studio.limits), studio.model.vocabulary
    if words is None:
        return PromptChecked(unknown=[], suggestions={})
    unknown = words.unknown(prompt)
    return PromptChecked(unknown=unknown, suggestions=await anyio.to_thread.run_sync(words.suggestions, unknown))
