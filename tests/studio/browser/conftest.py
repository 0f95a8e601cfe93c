"""A Chromium, and a studio for it: the real server with a pipeline that the tests pace."""

import contextlib
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videogen_jax.sampling.request import STAGE_SETTINGS
from videogen_jax.studio.app import create_app
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.model import Model
from videogen_jax.studio.server import StudioServer, bind

PATIENCE = 30_000  # milliseconds that a condition is waited for: machines that run tests are busy
# What Debian's Chromium needs as root and without a screen, and what keeps it from asking the network for anything.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class PacedPipeline:
    """The stand-in, which waits where a test wants it to.

    Attributes:
      asked: of each run, the settings that are not the model's own, the others None.
      outputs: what the runs gave.
    """

    def __init__(self, fake_pipeline: Any):
        self._pipeline = fake_pipeline
        self.name, self.fingerprint = fake_pipeline.name, fake_pipeline.fingerprint
        self.resolution = fake_pipeline.resolution
        self.asked: list[dict] = []
        self.outputs: list[Any] = []
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

    def __call__(self, prompts, **arguments):
        return self._pipeline(prompts, **arguments)

    def sample(self, request, callback, previews):
        def paced(stage: str, step: int, of: int, preview) -> None:
            if step == (of + 1) // 2 and stage in self._gates:
                self._gates[stage].wait(60)
            callback(stage, step, of, preview)

        index = self._pipeline.index
        request = request.resolve(index)
        stage, default = request.stages["cascade_4"], index.stage_settings["cascade_4"]
        settings = {name: getattr(stage, name) for name in STAGE_SETTINGS}
        settings = {name: None if value == getattr(default, name) else value for name, value in settings.items()}
        (settings["prompt"],), (settings["seed"],) = request.prompts, request.seed
        of_video = {name: getattr(request, name) for name in ("reference", "num_frames", "fps")}
        self.asked.append(settings | of_video)
        self.outputs.append(self._pipeline.sample(request, paced, previews))
        return self.outputs[-1]


class PacedSource:
    """A model that is loaded when `loaded` is set."""

    def __init__(self, source: Any):
        self.name, self.read, self.vocabulary = source.name, source.read, source.vocabulary
        self.pipeline = PacedPipeline(source.pipeline)
        self.loaded = threading.Event()

    def load(self) -> PacedPipeline:
        assert self.loaded.wait(60)
        return self.pipeline


class Server:
    """A studio served in a thread, at a port that it keeps when it is stopped and started again."""

    def __init__(self, source: PacedSource, folder: Path):
        self.source, self.pipeline, self.folder = source, source.pipeline, folder
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        listener = bind("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        self._server = StudioServer(create_app(Model(self.source), Gallery(self.folder, 100)))
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def browser():
    """A Chromium: $CHROMIUM, or one on the path. Without it these tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on the path, and $CHROMIUM names none")
    sync_api.expect.set_options(timeout=PATIENCE)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def new_studio(fake, tmp_path):
    """Starts a studio: new_studio(loading=True) one whose model is loaded when `source.loaded` is set."""
    started = []

    def start(loading: bool = False, videos: int = 0) -> Server:
        server = Server(PacedSource(fake.FakeSource()), tmp_path / f"gallery-{len(started)}")
        if not loading:
            server.source.loaded.set()
        gallery = Gallery(server.folder, 100)
        for number in range(videos):
            gallery.add(server.pipeline([f"video {number}"], seed=number, num_frames=2, callback=lambda *_: None))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.source.loaded.set()
        server.stop()


@pytest.fixture
def studio(new_studio):
    return new_studio()


@pytest.fixture
def pipeline(studio):
    return studio.pipeline


@pytest.fixture
def expected():
    """Patterns of what a test means to go wrong in the browser, named beforehand: its messages may come late."""
    return []


@pytest.fixture
def open_page(browser, expected, new_studio):
    """Opens the page in a new window; at the end no error but the expected may have come up in its console, and no
    request failed.

    It asks for `new_studio` so that the window is closed before the server is.
    """
    contexts, problems = [], []

    def opened(url: str, **options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", logged)
        page.on("pageerror", lambda error: problems.append(str(error)))
        # A video that leaves the page and an event stream that is closed are aborted: no failure.
        page.on("requestfailed", lambda request: failed(request.url, request.failure))
        page.goto(url)
        return page

    def logged(message) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{message.text} {message.location['url']}")

    def failed(url: str, why: str | None) -> None:
        if why != "net::ERR_ABORTED":
            problems.append(f"{url}: {why}")

    yield opened
    for context in contexts:
        context.close()
    assert [problem for problem in problems if not any(re.search(pattern, problem) for pattern in expected)] == []


@pytest.fixture
def page(open_page, studio):
    page = open_page(studio.url)
    page.locator("#model-status[data-status=ready]").wait_for()
    return page


@pytest.fixture
def rng():
    return np.random.default_rng(0)
