"""The studio served on a real port, in a thread or in its own process."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "a small red circle moving right"


def call(url: str, path: str, body: dict | None = None, method: str | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def finish(url: str, job: dict) -> dict:
    for _ in range(3000):
        job = call(url, f"/api/v1/jobs/{job['id']}")
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition was never met")


def stream(url: str, job: dict) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", f"/api/v1/jobs/{job['id']}/events")
    return connection, connection.getresponse()


def events(response: http.client.HTTPResponse):
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@contextlib.contextmanager
def process(*arguments: str):
    """Run the server of the fake pipeline as a process: (process, its URL)."""
    command = [sys.executable, str(ROOT / "tests/studio/fake_pipeline.py"), "--port=0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            line = running.stdout.readline()
            assert line.startswith("The studio is at http://127.0.0.1:"), line
            yield running, line.split()[4].rstrip("/")
        finally:
            running.kill()


def test_events_cover_every_stage_and_end_with_the_job(served):
    studio, url = served
    studio.pipeline.step_seconds = 0.03
    job = call(url, "/api/v1/jobs", {"prompt": PROMPT})
    connection, response = stream(url, job)
    assert response.getheader("Content-Type").startswith("text/event-stream")
    started = time.monotonic()
    received = list(events(response))  # ends by itself
    connection.close()
    assert received[-1]["state"] == "done"
    assert received[-1]["result"]
    stages = [event["stage"] for event in received]
    assert {"reference", "cascade_4", "cascade_8"} <= set(stages)
    steps = [(event["stage"], event["step"]) for event in received]
    assert len(set(map(str, received))) == len(received)  # no event is sent twice
    assert len(steps) <= 3 + 10 * (time.monotonic() - started)  # at most ten a second
    # A stream opened after the end consists of the final state.
    connection, response = stream(url, job)
    assert [event["state"] for event in events(response)] == ["done"]
    connection.close()


def test_a_stream_closed_in_the_middle_harms_nothing(served):
    studio, url = served
    studio.pipeline.hold.clear()
    job = call(url, "/api/v1/jobs", {"prompt": PROMPT})
    connection, response = stream(url, job)
    next(events(response))
    assert len(studio.shared.stream_slots) == 1
    response.close()
    connection.close()
    wait_until(lambda: len(studio.shared.stream_slots) == 0)
    studio.pipeline.hold.set()
    assert finish(url, job)["state"] == "done"


def test_streams_are_bounded(served):
    studio, url = served
    studio.pipeline.hold.clear()
    job = call(url, "/api/v1/jobs", {"prompt": PROMPT})
    with contextlib.ExitStack() as stack:
        for _ in range(studio.shared.limits.streams_per_client):
            connection, response = stream(url, job)
            stack.callback(connection.close)
            stack.callback(response.close)
            assert response.status == 200
        connection, response = stream(url, job)
        assert response.status == 429
        assert "event streams" in json.load(response)["error"]
        connection.close()
        # Other requests are not affected.
        assert call(url, f"/api/v1/jobs/{job['id']}")["state"] == "running"


def test_many_concurrent_requests_are_all_answered(served):
    studio, url = served
    studio.pipeline.hold.clear()
    job = call(url, "/api/v1/jobs", {"prompt": PROMPT})
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(call, url, f"/api/v1/jobs/{job['id']}") for _ in range(500)]
        assert all(answer.result()["id"] == job["id"] for answer in answers)
        studio.pipeline.hold.set()
        assert finish(url, job)["state"] == "done"


def test_stalled_uploads_do_not_block_other_requests(served):
    studio, url = served
    head = ("POST /api/v1/uploads HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", "Content-Length: 1000")
    begun = "\r\n".join((*head, "", "only this")).encode()
    with contextlib.ExitStack() as stack:
        address = urlsplit(url).netloc.split(":")
        halves = [stack.enter_context(socket.create_connection(address)) for _ in range(3)]
        for count, half in enumerate(halves, 1):
            half.sendall(begun)
            wait_until(lambda count=count: len(studio.shared.upload_slots) == min(count, 2))
        # A client may only have two uploads in progress.
        assert halves[-1].recv(100).startswith(b"HTTP/1.1 429 ")
        assert len(studio.shared.upload_slots) == 2
        assert call(url, "/healthz")["status"] == "ready"
    wait_until(lambda: len(studio.shared.upload_slots) == 0)
    assert len(studio.shared.uploads) == 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_server_stops_on_a_signal_despite_open_streams(tmp_path, stop):
    with process(f"--gallery={tmp_path}", "--step_seconds=30") as (running, url):
        job = call(url, "/api/v1/jobs", {"prompt": PROMPT})
        connection, response = stream(url, job)
        next(events(response))
        running.send_signal(stop)
        assert running.wait(30) == 0
        assert list(events(response)) == []
        connection.close()


def test_memory_stays_flat(tmp_path):
    """Over 90 jobs with their previews, events and files, memory grows by at most 5%; 20 jobs before them warm up."""
    options = (f"--gallery={tmp_path}", "--gallery_limit=16", "--step_seconds=0", "--load_seconds=0")
    with process(*options) as (running, url):
        memory = psutil.Process(running.pid).memory_info
        for number in range(1, 111):
            job = call(url, "/api/v1/jobs", {"prompt": PROMPT, "seed": number})
            if number % 10 == 0:
                connection, response = stream(url, job)
                list(events(response))
                connection.close()
            job = finish(url, job)
            assert job["state"] == "done"
            result = call(url, f"/api/v1/results/{job['result']}")
            paths = [stage["preview"] for stage in job["stages"] if stage["preview"]]
            for path in (*paths, result["video"], result["gif"]):
                urllib.request.urlopen(url + path, timeout=30).read()
            if number == 20:
                before = memory().rss
        after = memory().rss
        assert after <= 1.05 * before, f"{before / 2**20:.1f} MiB after 20 jobs, {after / 2**20:.1f} MiB after 110"
        assert len(list(tmp_path.iterdir())) == 16
