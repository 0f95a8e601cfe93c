import io
import time

import numpy as np
import pytest
from PIL import Image

from videogen_jax.studio.schemas import JobView, ModelView, ResultView

PROMPT = "a small red circle moving right"


def frames_of(response) -> np.ndarray:
    """Decode all frames of an image in a response, uint8 (T, H, W, 3)."""
    with Image.open(io.BytesIO(response.content)) as image:
        count = getattr(image, "n_frames", 1)
        frames = []
        for number in range(count):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def test_a_job_from_request_to_video(studio, client, fake):
    before = time.time()
    response = client.post("/api/v1/jobs", json={"prompt": "  a small  red zebra\n", "seed": 7, "frames": 9, "fps": 12})
    assert response.status_code == 202
    job = JobView.model_validate(response.json())
    assert (job.prompt, job.seed, job.unknown_words) == ("a small red zebra", 7, ["zebra"])
    assert job.settings["frames"] == 9
    assert job.settings["steps"] is None
    assert [stage.name for stage in job.stages] == [
        "text",
        "reference",
        "cascade_4",
        "cascade_8",
        "temporal",
        "decode",
    ]
    done = studio.wait(client, response.json())
    assert done["state"] == "done"
    assert before <= done["created"] <= done["started"] <= done["finished"] <= time.time()
    assert all(stage["state"] == "done" and stage["step"] == stage["of"] for stage in done["stages"])
    result = client.get(f"/api/v1/results/{done['result']}").json()
    ResultView.model_validate(result)
    assert (result["prompt"], result["seed"], result["frames"], result["fps"]) == ("a small red zebra", 7, 9, 12.0)
    assert (result["width"], result["height"]) == (fake.RESOLUTION, fake.RESOLUTION)
    assert result["recipe"]["settings"]["reference"]["steps"] == 6


def test_previews_are_the_output_of_the_pipeline(studio, client, fake):
    with studio.busy(client) as job:
        running = client.get(f"/api/v1/jobs/{job['id']}").json()
        urls = {stage["name"]: stage["preview"] for stage in running["stages"]}
        assert (running["state"], running["stage"], running["step"], running["of"]) == ("running", "cascade_4", 1, 4)
        assert [name for name, url in urls.items() if url] == ["reference"]
        response = client.get(urls["reference"])
        assert response.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(frames_of(response)[0], fake.picture(job["seed"], 0))
        assert client.get(f"/api/v1/jobs/{job['id']}/previews/cascade_4").status_code == 404
        assert client.get(f"/api/v1/jobs/{job['id']}/previews/nothing").status_code == 404
    done = studio.wait(client, job)
    previews = {stage["name"]: client.get(stage["preview"]) for stage in done["stages"] if stage["preview"]}
    assert previews["cascade_8"].headers["content-type"] == "image/webp"
    np.testing.assert_array_equal(frames_of(previews["cascade_8"]), fake.clip(job["seed"], 8)[:, ::2, ::2])
    # The final frames arrive in two parts and are joined.
    np.testing.assert_array_equal(frames_of(previews["decode"]), fake.clip(job["seed"], 15))
    assert done["stages"][-1]["preview"].endswith("?v=2")


def test_settings_reach_the_pipeline(studio, client):
    studio.make(client, seed=3, steps=2)
    assert {name: studio.pipeline.calls[-1][name] for name in ("prompt", "seed", "steps")} == {
        "prompt": PROMPT,
        "seed": 3,
        "steps": 2,
    }


def test_a_missing_seed_is_drawn(studio, client):
    with studio.busy(client) as first:
        second = studio.submit(client)
    assert first["seed"] != second["seed"]
    assert all(0 <= job["seed"] < 2**32 for job in (first, second))


def test_no_client_waits_behind_the_many_jobs_of_another(studio):
    """Client A fills its share of the queue; B comes last and is next."""
    a, b = studio.client("10.0.0.1"), studio.client("10.0.0.2")
    with studio.busy(a):
        waiting = [studio.submit(a) for _ in range(4)]
        late = studio.submit(b)
        assert [job["position"] for job in waiting] == [1, 2, 3, 4]
        assert late["position"] == 1
        assert [studio.wait(a, job, "queued")["position"] for job in waiting] == [2, 3, 4, 5]
    jobs = [studio.wait(a, job) for job in waiting]
    assert studio.wait(b, late)["started"] <= min(job["started"] for job in jobs)
    assert [job["state"] for job in jobs] == ["done"] * 4


def test_the_jobs_that_a_client_can_queue_are_limited(start):
    studio = start(queued_per_client=2, queued_per_address=3, queued=4)
    clients = [studio.client(address) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3")]
    for client in clients[:2]:
        client.get("/")  # sets a cookie: two clients at one address
    request = {"prompt": PROMPT}
    with studio.busy(clients[3]):
        for client, statuses in zip(clients, ([202, 202, 429], [202, 429], [202, 503], [503]), strict=True):
            for status in statuses:
                response = client.post("/api/v1/jobs", json=request)
                assert response.status_code == status
                if status > 400:
                    assert response.json()["error"]
                    assert int(response.headers["retry-after"]) > 0
        # A client that discards its cookie still counts towards its address.
        clients[0].cookies.clear()
        assert clients[0].post("/api/v1/jobs", json=request).status_code == 429


def test_a_waiting_job_is_cancelled_at_once(studio, client):
    with studio.busy(client):
        first, second = studio.submit(client), studio.submit(client)
        response = client.delete(f"/api/v1/jobs/{first['id']}")
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert studio.wait(client, second, "queued")["position"] == 1
    assert studio.wait(client, second)["state"] == "done"
    assert studio.wait(client, first)["state"] == "cancelled"
    assert len(studio.pipeline.calls) == 3  # the warm-up, the running job, and the second


def test_a_running_job_is_cancelled_within_two_steps(studio, client):
    with studio.busy(client) as job:
        before = len(studio.pipeline.steps)
        assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 200
    cancelled = studio.wait(client, job)
    assert (cancelled["state"], cancelled["result"]) == ("cancelled", None)
    assert len(studio.pipeline.steps) - before <= 2
    assert client.delete(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    studio.make(client)  # the pipeline still works


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("fail", "Something went wrong on the server (RuntimeError): the pipeline failed, as it was asked to"),
        ("memory", "The server ran out of memory: ask for fewer frames, or have it serve a smaller model."),
        ("disk", "The server's disk is full, so the video could not be kept: delete some results and try again."),
    ],
)
def test_a_job_that_fails_says_why_and_the_next_one_runs(studio, client, caplog, prompt, reason):
    failed = studio.wait(client, studio.submit(client, prompt))
    assert (failed["state"], failed["reason"], failed["result"]) == ("failed", reason, None)
    assert "Traceback" in caplog.text
    studio.make(client)


def test_a_result_that_cannot_be_written_fails_its_job_alone(studio, client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("videogen_jax.studio.gallery.write_frames", full)
        failed = studio.wait(client, studio.submit(client))
    assert failed["state"] == "failed"
    assert "disk is full" in failed["reason"]
    assert [path.name for path in studio.gallery.folder.iterdir()] == []
    studio.make(client)


def test_jobs_are_their_clients_own(studio):
    a, b, c = studio.client("10.0.0.1"), studio.client("10.0.0.1"), studio.client("10.0.0.2")
    b.get("/")
    job = studio.submit(a)
    assert [own["id"] for own in a.get("/api/v1/jobs").json()["jobs"]] == [job["id"]]
    for other in (b, c):
        assert other.get("/api/v1/jobs").json() == {"jobs": []}
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/previews/reference")):
            assert other.request(method, f"/api/v1/jobs/{job['id']}{path}").status_code == 404
    assert studio.wait(a, job)["state"] == "done"


def test_only_the_newest_finished_jobs_are_kept(start):
    studio = start(jobs_kept=3)
    client = studio.client()
    results = [studio.make(client)["id"] for _ in range(5)]
    kept = client.get("/api/v1/jobs").json()["jobs"]
    assert [job["result"] for job in kept] == results[2:]
    assert len(client.get("/api/v1/results").json()["results"]) == 5


def test_previews_are_kept_only_of_the_newest_jobs(start, fake):
    one_job = sum(
        array.nbytes for array in (fake.picture(0, 0), fake.clip(0, 8)[:, ::4, ::4], fake.clip(0, 8)[:, ::2, ::2])
    )
    one_job += 2 * fake.clip(0, 15).nbytes  # temporal and decode
    studio = start(preview_bytes=2 * one_job)
    client = studio.client()
    for _ in range(4):
        studio.make(client)
    jobs = client.get("/api/v1/jobs").json()["jobs"]
    assert [any(stage["preview"] for stage in job["stages"]) for job in jobs] == [False, False, True, True]


def test_the_remaining_time_is_estimated_from_earlier_jobs(studio, client):
    with studio.busy(client) as job:
        assert studio.wait(client, job, "running")["eta_seconds"] is None
    studio.wait(client, job)
    with studio.busy(client) as job:
        waiting = studio.submit(client)
        eta = studio.wait(client, job, "running")["eta_seconds"]
        assert 0 <= eta <= studio.wait(client, waiting, "queued")["eta_seconds"]
    assert studio.wait(client, waiting)["eta_seconds"] is None


def test_the_model_is_described_and_words_are_checked(studio, client):
    model = client.get("/api/v1/model").json()
    ModelView.model_validate(model)
    assert (model["status"], model["resolution"], model["max_frames"]) == ("ready", 32, 15)
    assert model["stages"] == ["text", "reference", "cascade_4", "cascade_8", "temporal", "decode"]
    # Steps and guidance scales differ between stages, so they have no common default.
    own = {name: value for name, value in model["defaults"].items() if model["limits"][name] is not None}
    assert own == {
        "frames": 15,
        "fps": 15.0,
        "guidance_scale": None,
        "reference_guidance_scale": 1.0,
        "steps": None,
    }
    assert model["limits"]["frames"] == [2, 15]
    assert len(model["examples"]) == 6
    for prompt in model["examples"]:
        checked = client.post("/api/v1/prompts/check", json={"prompt": prompt}).json()
        assert checked == {"unknown": [], "suggestions": {}}
    checked = client.post("/api/v1/prompts/check", json={"prompt": "a smal zzzz circel"}).json()
    assert checked["unknown"] == ["smal", "zzzz", "circel"]
    assert checked["suggestions"]["smal"][0] == "small"
    assert checked["suggestions"]["circel"][0] == "circle"
    assert checked["suggestions"]["zzzz"] == []


def test_a_model_that_takes_any_text_and_draws_nothing(start, fake):
    studio = start(source=fake.FakeSource(known=False, draws=False))
    client = studio.client()
    model = client.get("/api/v1/model").json()
    assert (model["words"], model["draws_reference"], len(model["examples"])) == ([], False, 6)
    assert "reference" not in model["stages"]
    response = client.post("/api/v1/jobs", json={"prompt": "a lighthouse"})
    assert response.status_code == 422
    assert "reference is missing" in response.json()["error"]


def test_jobs_wait_while_the_model_loads(fake, start):
    source = fake.FakeSource()
    source.pipeline.hold.clear()  # it stays in its warm-up
    studio = start(source=source, until="warming up")
    client = studio.client()
    assert source.pipeline.held.wait(10)
    model = client.get("/api/v1/model").json()
    assert model["status"] == "warming up"
    assert "cascade_4, 1 of 4" in model["detail"]
    assert model["words"]
    job = studio.submit(client)
    assert (job["state"], job["position"]) == ("queued", 0)
    source.pipeline.hold.set()
    assert studio.wait(client, job)["state"] == "done"
    assert client.get("/healthz").json() == {"status": "ready", "detail": ""}
    assert source.pipeline.calls[0]["prompt"] == model["examples"][0]


def test_requests_before_the_index_is_read(fake, start):
    class Slow(fake.FakeSource):
        """A model that is still being downloaded."""

        def read(self):
            self.pipeline.hold.wait()
            return super().read()

    source = Slow()
    source.pipeline.hold.clear()
    studio = start(source=source, until="loading")
    client = studio.client()
    model = client.get("/api/v1/model").json()
    ModelView.model_validate(model)
    assert (model["status"], model["name"], model["max_frames"], model["limits"]) == ("loading", "fake", None, None)
    assert client.post("/api/v1/prompts/check", json={"prompt": "a"}).json() == {"unknown": [], "suggestions": {}}
    assert client.post("/api/v1/jobs", json={"prompt": "a"}).status_code == 503
    source.pipeline.hold.set()


def test_a_model_that_cannot_be_loaded_is_reported_and_fails_new_jobs(fake, start):
    class Broken(fake.FakeSource):
        def load(self):
            raise ValueError("model/unet has no weights")

    studio = start(source=Broken())
    client = studio.client()
    assert client.get("/healthz").json() == {"status": "failed", "detail": "model/unet has no weights"}
    response = client.post("/api/v1/jobs", json={"prompt": PROMPT})
    assert response.status_code == 503
    assert "model/unet has no weights" in response.json()["error"]
