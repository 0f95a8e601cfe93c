"""The studio as it is felt: from the click to what each stage shows, in a browser.

    pip install -e '.[serve,test]' && python benchmarks/studio.py [--rounds 5] [--output studio.json]

Serves the embedded model with an empty gallery in a process of its own, waits until it is ready, and asks through the
page for one video after the other, each with another seed. Times are seconds from the click on the button to the moment
at which the page shows a stage's picture, loaded, and to the moment at which the final video can be played
(`readyState` 3). A Chromium is needed: on the path, or named by the environment variable CHROMIUM.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PROMPT = "a large orange star moving up left quickly on a striped navy background"
VIDEO = "final video"
MINUTES = 60_000  # milliseconds
# Notes the time at which each picture is loaded, and the video can be played, after the click on the button.
WATCH = """(count) => new Promise((resolve) => {
  const button = document.querySelector('#generate'), seen = {}, begun = performance.now();
  const known = new Set([...document.querySelectorAll('.job')]);
  const look = () => {
    const job = [...document.querySelectorAll('.job')].find((one) => !known.has(one));
    for (const item of job?.querySelectorAll('.track li') ?? []) {
      const image = item.querySelector('img'), name = item.querySelector('.stage-name').textContent;
      if (image?.complete && image.naturalWidth) seen[name] ??= elapsed();
    }
    const video = job?.querySelector('video');
    if (video?.readyState >= 3 && document.querySelectorAll('.tile').length > count) {
      seen['VIDEO'] = elapsed();
      return resolve(seen);
    }
    requestAnimationFrame(look);
  };
  const elapsed = () => (performance.now() - begun) / 1000;
  button.click();
  requestAnimationFrame(look);
})"""


def one_video(page: Page, seed: int) -> dict[str, float]:
    """Seconds from the click, by what is there then."""
    page.locator("#prompt").fill(PROMPT)
    page.locator("#settings").evaluate("fold => fold.open = true")
    page.get_by_role("switch", name="Random").uncheck()
    page.get_by_label("Seed").fill(str(seed))
    seen = page.evaluate(WATCH, page.locator(".tile").count())
    return {VIDEO if name == "VIDEO" else name: at for name, at in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="a .json file for the figures")
    asked = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("error: no Chromium is on the path; name one by the environment variable CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "videogen_jax.serve", "--port", "0", "--gallery", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as driver:
            try:
                url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
                browser = driver.chromium.launch(executable_path=chromium, args=ARGUMENTS)
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.set_default_timeout(10 * MINUTES)
                page.goto(url)
                page.locator("#model-status[data-status=ready]").wait_for()
                runs = [one_video(page, seed) for seed in range(asked.rounds)]
                browser.close()
            finally:
                server.terminate()
    figures = {}
    print(f"{'seconds from the click to':<28} {'median':>7} {'least':>7} {'most':>7}   ({asked.rounds} videos)")
    for name in runs[0]:
        times = [run[name] for run in runs if name in run]
        figures[name] = {"median": statistics.median(times), "times": times}
        print(f"{name:<28} {statistics.median(times):7.2f} {min(times):7.2f} {max(times):7.2f}")
    if asked.output:
        Path(asked.output).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
