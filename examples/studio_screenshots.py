"""Makes the pictures of the studio that the documentation shows, from the studio itself.

    pip install -e '.[serve,test]' && python examples/studio_screenshots.py

Serves the embedded model with an empty gallery, has videos made through the page, and photographs it: docs/studio.png
while a video takes shape, docs/studio_detail.png with one opened, docs/studio_narrow.png on a phone. A Chromium is
needed: on the path, or named by the environment variable CHROMIUM.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, sync_playwright

DOCS = Path(__file__).resolve().parents[1] / "docs"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
MINUTES = 60_000  # milliseconds
# Prompts and seeds of the videos in the gallery, the oldest first, and of the one that is seen in the making.
VIDEOS = (
    ("a large orange star moving up left quickly on a striped navy background", 7),
    ("a small white circle moving down slowly on a brown background", 2),
    ("a large green square circling clockwise on a checkered black background", 5),
    ("a large yellow triangle moving up left quickly on a navy background", 3),
)
LAST = ("a large purple circle moving right slowly on a checkered brown background", 1)


def ask(page: Page, prompt: str, seed: int) -> None:
    page.locator("#prompt").fill(prompt)
    page.locator("#settings").evaluate("fold => fold.open = true")
    page.get_by_role("switch", name="Random").uncheck()
    page.get_by_label("Seed").fill(str(seed))
    page.locator("#settings").evaluate("fold => fold.open = false")
    page.get_by_role("button", name="Make the video").click()


def make(page: Page, prompt: str, seed: int) -> None:
    before = page.locator(".tile").count()
    ask(page, prompt, seed)
    page.locator(".tile").nth(before).wait_for()


def open_page(browser: Browser, url: str, width: int, height: int, **options) -> Page:
    page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
    page.set_default_timeout(5 * MINUTES)
    page.goto(url)
    page.locator("#model-status[data-status=ready]").wait_for()
    return page


def photograph(page: Page, path: Path, part: Locator | None = None) -> None:
    """Waits until all pictures are there and nothing fades in any more."""
    page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    page.evaluate(
        "() => Promise.all(document.getAnimations().map((one) => one.effect.getTiming().iterations === 1 "
        "? one.finished : null))"
    )
    (part or page).screenshot(path=path)
    print(path, path.stat().st_size // 1024, "KB")


def take(browser: Browser, url: str, folder: Path) -> None:
    page = open_page(browser, url, 1280, 900)
    for prompt, seed in VIDEOS:
        make(page, prompt, seed)
    ask(page, *LAST)
    page.locator(".job .track li:nth-child(5)[data-state=running]").wait_for()
    photograph(page, folder / "studio.png")
    page.locator(".job[data-state=done] video").wait_for()
    page.locator(".tile").nth(2).click()
    page.wait_for_function("() => document.querySelector('dialog video')?.readyState >= 3")
    page.get_by_role("dialog").get_by_role("slider").fill("12")
    photograph(page, folder / "studio_detail.png", page.get_by_role("dialog"))
    page.context.close()

    page = open_page(browser, url, 390, 844, device_scale_factor=2, has_touch=True, is_mobile=True, color_scheme="dark")
    ask(page, *VIDEOS[0])
    page.locator(".job .track li:nth-child(5)[data-state=running]").wait_for()
    photograph(page, folder / "studio_narrow.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DOCS, help="where the pictures go; docs/ if not given")
    folder = parser.parse_args().folder
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("error: there is no chromium on the path, and CHROMIUM names none")
    with tempfile.TemporaryDirectory() as gallery:
        command = [sys.executable, "-m", "videogen_jax.serve", "--port", "0", "--gallery", gallery]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                take(browser, url, folder)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
