"""The studio: a web page for making videos, and the HTTP interface behind it.

    python -m videogen_jax.serve

prints the URL of the page. Only this machine can reach it unless a token is set; see docs/studio.md.
"""

import dataclasses
import os

from absl import app, flags

from videogen_jax.runtime.command_line import configure_output, fail, parse
from videogen_jax.studio.clients import TOKEN_VARIABLE, check_token

_MODEL = flags.DEFINE_string("model", None, "Model folder or hub id; by default the embedded model")
_REFERENCE_MODEL = flags.DEFINE_string(
    "reference_model", None, "A folder or hub id in diffusers' layout (Stable Diffusion) that draws the reference image"
)
_COMPONENTS = (
    flags.DEFINE_string(
        "motion_adapter", None, "AnimateDiff's motion adapter: a folder, a hub id, or id:file.safetensors"
    ),
    flags.DEFINE_string("motion_norm", None, 'What motion modules normalise, "frame" or "video"'),
    flags.DEFINE_string("sparse_control", None, "SparseCtrl's network for RGB images, with a --motion_adapter"),
    flags.DEFINE_string("upper_model", None, "A folder or hub id of ZeroScope XL, above a model like ZeroScope"),
)
_AOT = flags.DEFINE_string("aot", None, "A folder of programs that videogen_jax.export_sampler wrote, to start sooner")
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen at; other than this machine's own only with a token"
)
_PORT = flags.DEFINE_integer("port", 7860, "Port to listen at; 0 takes a free one", lower_bound=0, upper_bound=65535)
_GALLERY = flags.DEFINE_string("gallery", "out/gallery", "Folder in which finished videos are stored")
_GALLERY_LIMIT = flags.DEFINE_integer(
    "gallery_limit", 500, "Videos to store; beyond it the oldest that is not pinned is deleted", lower_bound=1
)
_QUEUE = flags.DEFINE_integer("queue", 32, "Jobs that may wait, of all clients together", lower_bound=1)
_TOKEN = flags.DEFINE_string(
    "token", None, f"Secret that clients must send; preferably in the environment variable {TOKEN_VARIABLE}"
)


def serve() -> None:
    """Serve until a signal stops the process.

    Raises:
      ValueError, OSError: the server cannot start.
    """
    host, token = _HOST.value, _TOKEN.value or os.environ.get(TOKEN_VARIABLE) or None
    check_token(host, token)
    try:
        import uvicorn  # noqa: F401  (a missing extra must be reported before anything is loaded)

        from videogen_jax.studio.app import create_app
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'videogen_jax[serve]'") from error
    from videogen_jax.studio.gallery import Gallery
    from videogen_jax.studio.limits import Limits
    from videogen_jax.studio.model import FolderSource, Model
    from videogen_jax.studio.server import bind, run
    from videogen_jax.weights.hub import EMBEDDED, is_id

    if _AOT.value:
        from videogen_jax.sampling.exported import StoredPrograms

        StoredPrograms.read(_AOT.value)  # reports missing files before the server starts
    names = [name for name in (_MODEL.value or EMBEDDED, _REFERENCE_MODEL.value) if name is not None]
    components = {flag.name: flag.value for flag in _COMPONENTS}
    model = Model(FolderSource(*names, exported=_AOT.value, **components))
    if not any(map(is_id, [*names, *filter(None, components.values())])):
        model.read()  # reports a folder without a model at once; a hub id is downloaded while the page waits
    limits = Limits()
    limits = dataclasses.replace(
        limits,
        queued=_QUEUE.value,
        queued_per_address=max(_QUEUE.value // 2, min(limits.queued_per_client, _QUEUE.value)),
        results=_GALLERY_LIMIT.value,
    )
    gallery = Gallery(_GALLERY.value, _GALLERY_LIMIT.value)
    listener = bind(host, _PORT.value)
    run(create_app(model, gallery, limits, token), listener)


def main(argv: list[str]) -> None:
    del argv
    configure_output()
    try:
        serve()
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        fail("stopped", 130)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
