"""A Chromium, and a studio for it: the real server with a pipeline that the tests pace."""

import contextlib
import importlib.util
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from videogen_jax.studio.app import create_app
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.model import Model

# What Debian's Chromium needs as root and without a screen, and what keeps it from asking the network for anything.
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def _module(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


fake_pipeline = _module("browser_fake_pipeline", Path(__file__).parents[1] / "fake_pipeline.py")


class PacedPipeline(fake_pipeline.FakePipeline):
    """Waits where a test wants it to.

    Attributes:
      asked: the arguments of its runs.
      outputs: what they gave.
    """

    def __init__(self):
        super().__init__()
        self.asked: list[dict] = []
        self.outputs: list[fake_pipeline.FakeOutput] = []
        self.loaded = threading.Event()
        self._gates: dict[str, threading.Event] = {}

    @contextlib.contextmanager
    def held_at(self, stage: str):
        """Inside this block a run stops in the middle of a stage."""
        gate = self._gates[stage] = threading.Event()
        try:
            yield
        finally:
            del self._gates[stage]
            gate.set()

    def __call__(self, prompts, *, callback, **arguments):
        def paced(stage: str, step: int, of: int, preview) -> None:
            if step == (of + 1) // 2 and stage in self._gates:
                self._gates[stage].wait(60)
            callback(stage, step, of, preview)

        self.asked.append({"prompt": prompts[0], **arguments})
        self.outputs.append(super().__call__(prompts, callback=paced, **arguments))
        return self.outputs[-1]


class PacedSource(fake_pipeline.FakeSource):
    def __init__(self, pipeline: PacedPipeline):
        super().__init__()
        self.pipeline = pipeline

    def load(self) -> PacedPipeline:
        assert self.pipeline.loaded.wait(60)
        return self.pipeline


class Studio:
    """A server in a thread, at a port that it keeps when it is stopped and started again."""

    def __init__(self, folder: Path):
        self.pipeline = PacedPipeline()
        self.folder = folder
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        app = create_app(Model(PacedSource(self.pipeline)), Gallery(self.folder, 100))
        config = uvicorn.Config(app, port=self.port, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def browser():
    """A Chromium: $CHROMIUM, or one on the path. Without it these tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on the path, and $CHROMIUM names none")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def new_studio(tmp_path):
    """Starts a studio: new_studio(loading=True) one whose model is loaded when `pipeline.loaded` is set."""
    started = []

    def start(loading: bool = False, videos: int = 0) -> Studio:
        studio = Studio(tmp_path / f"gallery-{len(started)}")
        started.append(studio)
        if not loading:
            studio.pipeline.loaded.set()
        gallery = Gallery(studio.folder, 100)
        for number in range(videos):
            gallery.add(studio.pipeline([f"video {number}"], seed=number, num_frames=2, callback=lambda *_: None))
        studio.start()
        return studio

    yield start
    for studio in started:
        studio.pipeline.loaded.set()
        studio.stop()


@pytest.fixture
def studio(new_studio):
    return new_studio()


@pytest.fixture
def pipeline(studio):
    return studio.pipeline


@pytest.fixture
def problems():
    """What went wrong in the browser so far. A test that means something to go wrong looks at it and clears it."""
    return []


@pytest.fixture
def open_page(browser, problems, new_studio):
    """Opens the page in a new window; at the end no error may have come up in its console, and no request failed.

    It asks for `new_studio` so that the window is closed before the server is.
    """
    contexts = []

    def opened(url: str, **options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", told)
        page.on("pageerror", lambda error: problems.append(str(error)))
        # A video that leaves the page and an event stream that is closed are aborted: no failure.
        page.on("requestfailed", lambda request: failed(request.url, request.failure))
        page.goto(url)
        return page

    def told(message) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{message.text} {message.location['url']}")

    def failed(url: str, why: str | None) -> None:
        if why != "net::ERR_ABORTED":
            problems.append(f"{url}: {why}")

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(open_page, studio):
    page = open_page(studio.url)
    page.locator("#model-status[data-status=ready]").wait_for()
    return page


@pytest.fixture
def rng():
    return np.random.default_rng(0)
