"""Fixtures of a studio with a fake pipeline, called within this process or served on a port."""

import contextlib
import importlib.util
import threading
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from videogen_jax.studio.app import create_app
from videogen_jax.studio.gallery import Gallery
from videogen_jax.studio.limits import Limits
from videogen_jax.studio.model import Model
from videogen_jax.studio.server import StudioServer, bind, url_of

PROMPT = "a small red circle moving right"


@pytest.fixture(scope="session")
def fake():
    """The module tests/studio/fake_pipeline.py."""
    spec = importlib.util.spec_from_file_location("fake_pipeline", Path(__file__).with_name("fake_pipeline.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Studio:
    """A studio, and helpers to submit jobs and wait for them; `pipeline` is the fake."""

    def __init__(self, fake, folder, token=None, source=None, gallery_limit=100, **limits):
        self.source = source or fake.FakeSource()
        self.pipeline = getattr(self.source, "pipeline", None)
        self.gallery = Gallery(folder, gallery_limit)
        self.app = create_app(Model(self.source), self.gallery, Limits(**limits), token)
        self.shared = self.app.state.studio

    def client(self, address: str = "10.0.0.1", **options) -> TestClient:
        """Create another client; it has no cookie until it opens the page."""
        return TestClient(self.app, base_url="http://127.0.0.1:7860", client=(address, 1), **options)

    def wait(self, client, job: dict, *states: str) -> dict:
        """Poll a job until it is in one of the states, by default the final ones."""
        states = states or ("done", "failed", "cancelled")
        for _ in range(6000):
            job = client.get(f"/api/v1/jobs/{job['id']}").json()
            if job["state"] in states:
                return job
            time.sleep(0.01)
        raise AssertionError(f"the job does not reach {states}: {job}")

    def wait_for_model(self, *statuses: str) -> None:
        for _ in range(6000):
            if self.shared.model.status in (*statuses, "failed"):
                return
            time.sleep(0.01)
        raise AssertionError(f"the model does not reach {statuses}")

    def submit(self, client, prompt: str = PROMPT, **fields) -> dict:
        response = client.post("/api/v1/jobs", json={"prompt": prompt, **fields})
        assert response.status_code == 202, response.text
        return response.json()

    def make(self, client, prompt: str = PROMPT, **fields) -> dict:
        """Generate a video and return its result."""
        job = self.wait(client, self.submit(client, prompt, **fields))
        assert job["state"] == "done", job
        return client.get(f"/api/v1/results/{job['result']}").json()

    @contextlib.contextmanager
    def busy(self, client):
        """Hold the worker in the middle of a job of the client during the block; the job continues after it."""
        self.pipeline.hold.clear()
        try:
            job = self.submit(client)
            assert self.pipeline.held.wait(10)
            yield job
        finally:
            self.pipeline.hold.set()


@pytest.fixture
def start(fake, tmp_path):
    """Start studios (see `Studio`), whose workers run until the test ends, and wait for a status of the model."""
    with contextlib.ExitStack() as stack:

        def start(folder=tmp_path / "gallery", until="ready", **options) -> Studio:
            studio = Studio(fake, folder, **options)
            stack.enter_context(studio.client())
            studio.wait_for_model(until)
            return studio

        yield start


@pytest.fixture
def studio(start) -> Studio:
    return start()


@pytest.fixture
def client(studio) -> TestClient:
    return studio.client()


@pytest.fixture
def serve(fake, tmp_path):
    """Serve studios (see `Studio`) on a port, with uvicorn in a thread, until the test ends: (studio, its URL)."""
    running = []

    def serve(**options) -> tuple[Studio, str]:
        studio = Studio(fake, tmp_path / "served", **options)
        listener = bind("127.0.0.1", 0)
        server = StudioServer(studio.app)
        thread = threading.Thread(target=server.run, args=([listener],))
        running.append((server, thread))
        thread.start()
        studio.wait_for_model("ready")
        return studio, url_of(listener).rstrip("/")

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def served(serve):
    """A studio served on a port: (studio, its URL)."""
    studio, url = serve()
    yield studio, url
    studio.pipeline.hold.set()
