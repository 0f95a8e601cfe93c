"""The studio's page in a Chromium, against the real server; the pipeline is one that the tests pace."""

import json
import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
PROMPT = "a small red circle moving right slowly on a gray background"
OTHER = "a large blue star growing on a striped gray background"
# What the browser itself logs of requests to a server that is away.
AWAY = [r"net::ERR_(CONNECTION|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|NETWORK)"]
# Whether a video has played: it can, and its pictures differ.
PLAYS = """video => {
  if (video.readyState < 3) return false;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  video.seen ??= new Set();
  video.seen.add(context.getImageData(0, 0, canvas.width, canvas.height).data.join());
  return video.seen.size > 2;
}"""


def ask(page: Page, prompt: str = PROMPT) -> None:
    page.get_by_label("What should the video show?").fill(prompt)
    page.get_by_role("button", name="Make the video").click()


def make(page: Page, prompt: str = PROMPT) -> None:
    """Has a video made and waits until it is in the gallery."""
    before = page.locator(".tile").count()
    ask(page, prompt)
    expect(page.locator(".tile")).to_have_count(before + 1)


def open_newest(page: Page):
    page.locator(".tile").first.click()
    detail = page.get_by_role("dialog")
    expect(detail).to_be_visible()
    return detail


def wait_until(page: Page, script: str, locator) -> None:
    page.wait_for_function(script, arg=locator.element_handle())


def is_loaded(page: Page, image) -> None:
    wait_until(page, "image => image.complete && image.naturalWidth > 0", image)


def test_a_video_takes_shape_stage_by_stage(page, pipeline):
    job = page.get_by_role("article")
    with pipeline.held_at("cascade_8"):
        ask(page)
        expect(job.locator("[aria-current=step]")).to_contain_text("Motion at 32")
        thumbs = job.locator(".track img")
        expect(thumbs).to_have_count(2)  # the reference image and the first cascade stage
        for at in range(2):
            is_loaded(page, thumbs.nth(at))
        assert page.locator("video").count() == 0
        job.get_by_role("button", name="Reference image").click()
        expect(job.get_by_role("img", name=re.compile("^Reference image")).last).to_be_visible()
        job.get_by_role("button", name="Reference image").click()  # lets go of it
        coarse = job.get_by_role("img", name=re.compile("^Motion at")).last
        expect(coarse).to_have_css("image-rendering", "pixelated")
        wait_until(page, "image => image.naturalWidth === 8", coarse)
    video = job.locator("video")
    expect(video).to_be_visible()
    wait_until(page, PLAYS, video)
    expect(page.locator(".tile")).to_contain_text([PROMPT])


def test_cancelling_ends_the_job(page, pipeline, studio):
    with pipeline.held_at("cascade_4"):
        ask(page)
        expect(page.locator("[aria-current=step]")).to_contain_text("Motion")
        with page.expect_response(lambda response: response.request.method == "DELETE"):
            page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Cancelling")).to_be_disabled()
    expect(page.get_by_role("article")).to_have_count(0)
    states = [job["state"] for job in page.request.get(f"{studio.url}/api/v1/jobs").json()["jobs"]]
    assert states == ["cancelled"]
    make(page)  # the server takes the next


def test_a_job_waits_its_turn_and_says_so(page, pipeline):
    with pipeline.held_at("cascade_4"):
        ask(page)
        ask(page, OTHER)
        second = page.get_by_role("article").filter(has_text=OTHER)
        expect(second).to_contain_text("one video before it")
        second.get_by_role("button", name="Cancel").click()
        expect(second).to_have_count(0)


def test_jobs_are_taken_while_the_model_loads(open_page, new_studio):
    studio = new_studio(loading=True)
    page = open_page(studio.url)
    expect(page.locator("#model-status")).to_contain_text("loading")
    ask(page)
    expect(page.get_by_role("article")).to_contain_text("Waiting for the model")
    studio.source.loaded.set()
    expect(page.locator("#model-status")).to_contain_text("ready")
    expect(page.locator(".tile")).to_have_count(1)


def test_words_are_suggested_while_they_are_typed(page):
    box = page.get_by_label("What should the video show?")
    box.press_sequentially("a small re")
    option = page.get_by_role("option", name="red")
    expect(option).to_be_visible()
    box.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    box.press("Enter")
    expect(box).to_have_value("a small red ")
    box.press_sequentially("cir")
    page.get_by_role("option", name="circle", exact=True).click()
    expect(box).to_have_value("a small red circle ")
    assert page.get_by_role("article").count() == 0  # none of these keys has asked for a video


def test_unknown_words_are_marked_and_near_ones_offered(page):
    box = page.get_by_label("What should the video show?")
    box.fill("a smal Red dragon")
    expect(page.locator(".prompt-text mark")).to_have_text(["smal", "dragon"])
    expect(page.locator("#prompt-note")).to_contain_text("“dragon” is unknown")
    page.locator("#prompt-note").get_by_role("button", name="small").click()
    expect(box).to_have_value("a small Red dragon")
    expect(page.locator(".prompt-text mark")).to_have_text(["dragon"])


def test_an_example_fills_the_box(page):
    page.get_by_role("button", name=PROMPT).click()
    expect(page.get_by_label("What should the video show?")).to_have_value(PROMPT)


def test_an_uploaded_image_is_the_reference(page, pipeline, tmp_path, rng):
    pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    page.locator("#reference-file").set_input_files(tmp_path / "mine.png")
    preview = page.get_by_role("img", name="The reference image")
    expect(preview).to_be_visible()
    is_loaded(page, preview)
    with pipeline.held_at("cascade_4"):
        ask(page)
        expect(page.locator(".stage-name").first).to_be_visible()
        expect(page.locator(".stage-name").get_by_text("Reference image")).to_have_count(0)
    expect(page.locator(".tile")).to_have_count(1)
    np.testing.assert_array_equal(pipeline.asked[-1]["reference"], pixels)
    page.get_by_role("button", name="Remove the reference image").click()
    expect(page.get_by_text("Choose an image")).to_be_visible()
    make(page)
    assert pipeline.asked[-1]["reference"] is None


def test_an_image_can_be_dropped(page, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "dropped.png")
    transfer = page.evaluate_handle(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          return transfer;
        }""",
        list((tmp_path / "dropped.png").read_bytes()),
    )
    page.locator("#reference-drop").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.locator("#reference-name")).to_contain_text("dropped.png, 8")


def test_settings_reach_the_pipeline(page, pipeline):
    page.locator("#settings > summary").click()
    page.get_by_role("switch", name="Random").uncheck()
    page.get_by_label("Seed").fill("7")
    for name, value in (("Frames", "9"), ("Guidance", "2.5"), ("Steps", "3"), ("Frames a second", "12")):
        page.get_by_role("spinbutton", name=name, exact=True).fill(value)
    make(page)
    asked = pipeline.asked[-1]
    assert [asked[name] for name in ("seed", "num_frames", "guidance_scale", "steps", "fps")] == [7, 9, 2.5, 3, 12]
    assert asked["reference_guidance_scale"] is None


def test_wrong_input_is_told_at_its_field(page, pipeline):
    page.locator("#settings > summary").click()
    page.get_by_role("spinbutton", name="Frames", exact=True).fill("400")
    page.locator("#settings > summary").click()
    ask(page)
    frames = page.get_by_role("spinbutton", name="Frames", exact=True)
    expect(page.locator("#frames-error")).to_contain_text("from 2 to 15")
    expect(frames).to_be_focused()
    page.get_by_role("button", name="Back to the model").click()
    page.get_by_label("What should the video show?").fill(" ")
    page.get_by_role("button", name="Make the video").click()
    expect(page.locator("#prompt-error")).to_have_text("Say what the video should show.")
    assert page.get_by_role("article").count() == 0


def test_what_the_server_refuses_is_told_in_its_words(page, expected, tmp_path):
    expected += ["status of 422", "status of 400"]
    (tmp_path / "bad.png").write_text("no image")
    page.locator("#reference-file").set_input_files(tmp_path / "bad.png")
    expect(page.locator("#reference-error")).to_contain_text("not an image that can be read")
    ask(page, "red " * 200)
    expect(page.locator("#prompt-error")).to_contain_text("prompt")


def test_who_may_not_come_in_is_told_so(open_page, studio, expected):
    expected.append("status of 401")
    page = open_page(studio.url)
    sentence = "A token is needed: open the page once as /?token=..."
    page.route("**/api/v1/*", lambda route: route.fulfill(status=401, json={"error": sentence}))
    page.reload()
    expect(page.locator("#notice")).to_have_text(sentence)


def test_a_failure_is_shown_with_its_reason(page, pipeline):
    ask(page, "a disk")
    job = page.get_by_role("article")
    expect(job).to_contain_text("The server's disk is full")
    job.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("article")).to_contain_text("Failed")
    assert [asked["prompt"] for asked in pipeline.asked[-2:]] == ["a disk", "a disk"]
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("article")).to_have_count(0)


def test_the_gallery_survives_a_restart(page, studio, expected):
    make(page)
    expected += AWAY
    studio.stop()
    ask(page, OTHER)
    notice = page.locator("#notice")
    expect(notice).to_contain_text("connection")
    studio.start()
    expect(notice).to_be_hidden()
    page.reload()
    expect(page.locator(".tile")).to_contain_text([PROMPT])
    wait_until(page, PLAYS, open_newest(page).locator("video"))


def test_a_job_that_a_restart_has_ended_is_told(page, studio, expected):
    expected += AWAY
    with studio.pipeline.held_at("cascade_4"):
        ask(page)
        expect(page.locator("[aria-current=step]")).to_contain_text("Motion")
        studio.stop()
    studio.start()
    expect(page.get_by_role("article")).to_contain_text("restarted")


def test_again_with_another_seed(page, pipeline):
    make(page)
    open_newest(page).get_by_role("button", name="Again with another seed").click()
    expect(page.locator(".tile")).to_have_count(2)
    first, second = pipeline.asked[-2:]
    assert first["prompt"] == second["prompt"]
    assert first["seed"] != second["seed"]


def test_same_settings_fill_the_form(page, pipeline):
    page.locator("#settings > summary").click()
    page.get_by_role("spinbutton", name="Frames", exact=True).fill("12")
    make(page, OTHER)
    page.get_by_role("button", name="Back to the model").click()
    page.get_by_label("What should the video show?").fill("")
    open_newest(page).get_by_role("button", name="Same settings").click()
    expect(page.get_by_label("What should the video show?")).to_have_value(OTHER)
    page.get_by_role("button", name="Make the video").click()
    expect(page.locator(".tile")).to_have_count(2)
    first, second = pipeline.asked[-2:]
    assert [first[name] for name in ("prompt", "seed", "num_frames")] == [
        second[name] for name in ("prompt", "seed", "num_frames")
    ]


def test_a_frame_becomes_the_reference(page, pipeline):
    make(page)
    made = pipeline.outputs[-1].frames[0]
    detail = open_newest(page)
    slider = detail.get_by_role("slider", name="Frame")
    slider.fill("5")
    expect(detail.get_by_text(f"6 / {len(made)}")).to_be_visible()
    assert detail.locator("video").evaluate("video => video.paused")
    detail.get_by_role("button", name="Use this frame as reference").click()
    expect(detail).to_be_hidden()
    is_loaded(page, page.get_by_role("img", name="The reference image"))
    make(page, OTHER)
    np.testing.assert_array_equal(pipeline.asked[-1]["reference"], made[5])


def test_two_videos_are_compared_in_step(page):
    make(page)
    make(page, OTHER)
    page.get_by_role("button", name="Compare").click()
    for at in range(2):
        page.locator(".tile").nth(at).click()
    dialog = page.get_by_role("dialog")
    videos = dialog.locator("video")
    expect(videos).to_have_count(2)
    for at in range(2):
        wait_until(page, PLAYS, videos.nth(at))
    near = "([a, b]) => !a.paused && !b.paused && a.currentTime > 0.2 && Math.abs(a.currentTime - b.currentTime) < 0.1"
    page.wait_for_function(f"dialog => ({near})([...dialog.querySelectorAll('video')])", arg=dialog.element_handle())
    dialog.get_by_role("slider", name="Moment").fill("4")
    times = videos.evaluate_all("videos => videos.map(video => [video.paused, video.currentTime])")
    assert times[0] == times[1]
    assert times[0][0]
    dialog.get_by_role("button", name="Play").click()
    page.wait_for_function(f"dialog => ({near})([...dialog.querySelectorAll('video')])", arg=dialog.element_handle())


def test_a_recipe_can_be_read_and_copied(page, studio):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=studio.url)
    make(page)
    detail = open_newest(page)
    expect(detail.get_by_role("region", name="Recipe")).to_contain_text("Seed")
    detail.get_by_role("button", name="Copy").click()
    expect(detail.get_by_role("button", name="Copied")).to_be_visible()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["prompt"] == PROMPT


@pytest.mark.parametrize(("name", "start"), [("MP4", b"ftyp"), ("GIF", b"GIF8"), ("PNG sheet", b"\x89PNG")])
def test_files_can_be_downloaded(page, name, start):
    make(page)
    detail = open_newest(page)
    with page.expect_download() as download:
        detail.get_by_role("link", name=name).click()
    assert start in download.value.path().read_bytes()[:16]


def test_deleting_asks_once(page):
    make(page)
    detail = open_newest(page)
    detail.get_by_role("button", name="Delete").click()
    detail.get_by_role("button", name="Keep").click()
    detail.get_by_role("button", name="Delete").click()
    expect(detail.get_by_text("Delete it for good?")).to_be_visible()
    detail.get_by_role("button", name="Delete").click()
    expect(page.locator(".tile")).to_have_count(0)
    page.reload()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()


def test_a_tile_plays_under_the_pointer(page):
    make(page)
    page.reload()
    page.locator(".tile").hover()
    wait_until(page, PLAYS, page.locator(".tile video"))
    page.mouse.move(0, 0)
    expect(page.locator(".tile video")).to_have_count(0)


def test_older_videos_are_loaded_when_asked_for(open_page, new_studio):
    studio = new_studio(videos=26)
    page = open_page(studio.url)
    expect(page.locator(".tile")).to_have_count(24)
    page.get_by_role("button", name="Show older videos").click()
    expect(page.locator(".tile")).to_have_count(26)
    expect(page.get_by_role("button", name="Show older videos")).to_be_hidden()


def test_a_video_has_an_address_and_the_way_back_closes_it(page):
    make(page)
    detail = open_newest(page)
    assert "#video=" in page.url
    page.reload()
    expect(detail).to_be_visible()
    page.go_back()
    expect(detail).to_be_hidden()


def test_no_motion_where_none_is_wanted(open_page, studio, pipeline):
    page = open_page(studio.url, reduced_motion="reduce")
    with pipeline.held_at("cascade_8"):
        ask(page)
        # An animated image would run; a canvas with its first picture stands.
        expect(page.get_by_role("article").locator("figure canvas[role=img]")).to_be_visible()
    expect(page.get_by_role("article").locator("video")).to_be_visible()
    assert page.get_by_role("article").locator("video").evaluate("video => video.paused")


REACHABLE = """() => {
  const problems = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) problems.push("the page scrolls sideways");
  const root = document.querySelector("dialog[open]") ?? document;
  for (const control of root.querySelectorAll("button, a[href], input, textarea, summary")) {
    if (!control.checkVisibility() || control.matches(".visually-hidden")) continue;
    control.scrollIntoView({block: "center"});
    const {left, right, top, bottom, height} = control.getBoundingClientRect();
    const name = control.getAttribute("aria-label") || control.innerText || control.labels?.[0]?.innerText || "";
    if (!name.trim()) problems.push(`${control.outerHTML.slice(0, 80)} has no name`);
    if (left < 0 || right > width) problems.push(`${name} ends outside of the window`);
    const top_ = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    if (!control.contains(top_) && !top_?.contains(control) && !control.disabled) problems.push(`${name} is covered`);
    if (height < 24) problems.push(`${name} is ${height} pixels high`);
  }
  return problems;
}"""


def test_a_narrow_window_has_room_for_everything(open_page, studio, pipeline):
    page = open_page(studio.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for fold in page.locator("#composer > details > summary").all():
        fold.click()
    assert page.evaluate(REACHABLE) == []
    with pipeline.held_at("cascade_8"):
        ask(page)
        expect(page.locator("[aria-current=step]")).to_contain_text("Motion")
        assert page.evaluate(REACHABLE) == []
    expect(page.locator(".tile")).to_have_count(1)
    make(page, OTHER)
    assert page.evaluate(REACHABLE) == []
    picture = page.locator(".tile .picture").first
    picture.tap()  # plays it
    wait_until(page, PLAYS, picture.locator("video"))
    picture.tap()  # opens it
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(REACHABLE) == []
    page.get_by_role("button", name="Compare with another").tap()
    page.locator(".tile").nth(1).tap()
    expect(page.get_by_role("dialog").locator("video")).to_have_count(2)
    assert page.evaluate(REACHABLE) == []


def test_the_page_can_be_used_with_the_keyboard_alone(page):
    page.get_by_label("What should the video show?").focus()
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="Finished")).to_have_count(1)
    page.locator(".tile").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".tile")).to_be_focused()
