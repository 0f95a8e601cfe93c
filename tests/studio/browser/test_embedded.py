"""The whole way once: `python -m videogen_jax.serve` as it is started from the shell, the embedded model, a browser."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def served(browser, tmp_path):
    """The address of the studio, served by a process of its own."""
    command = [sys.executable, "-m", "videogen_jax.serve", "--port", "0", "--gallery", str(tmp_path / "gallery")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        yield next(word for word in server.stdout.readline().split() if word.startswith("http"))
        server.terminate()
    assert server.returncode == 0


def test_a_sentence_becomes_a_video(served, open_page):
    page = open_page(served)
    page.set_default_timeout(300_000)  # the first video waits for all programs to be compiled
    page.locator(".example").first.click()
    page.locator("#generate").click()
    job = page.get_by_role("article")
    reference = job.locator(".track li", has_text="Reference image").locator("img")
    reference.wait_for()
    assert page.locator("video").count() == 0
    page.wait_for_function("image => image.complete && image.naturalWidth === 128", arg=reference.element_handle())
    page.wait_for_function("() => document.querySelector('.job video')?.readyState >= 3")
    assert job.locator(".thumb > img").count() == 6
