import errno
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from videogen_jax.sampling.recipe import Recipe
from videogen_jax.studio.errors import Refused
from videogen_jax.studio.gallery import FILES, Gallery
from videogen_jax.video_io import contact_sheet, read_image, read_video


@pytest.fixture
def output(fake):
    """Generate a video as the pipeline would, from a seed."""
    pipeline = fake.FakePipeline()

    def output(seed: int = 0, **arguments):
        return pipeline(["a small red circle"], seed=seed, callback=lambda *_: None, **arguments)

    return output


@pytest.fixture
def gallery(tmp_path):
    return Gallery(tmp_path / "gallery", 10)


def test_results_survive_a_restart_and_hold_their_recipe(gallery, output):
    video = output(3, num_frames=9)
    result = gallery.add(video)
    again = Gallery(gallery.folder, 10)
    assert again.get(result.id) == result
    np.testing.assert_array_equal(again.frames(result.id), video.frames[0])
    np.testing.assert_array_equal(read_image(again.file(result.id, "reference.png")), video.reference[0])
    mp4 = again.file(result.id, "video.mp4")
    frames, fps = read_video(mp4)
    assert (frames.shape, fps) == (video.frames[0].shape, video.fps)
    recipe = video.recipes[0]
    assert Recipe.from_json(again.file(result.id, "recipe.json").read_text(encoding="utf-8")) == recipe
    for path in (mp4, again.file(result.id, "video.gif"), again.file(result.id, "sheet.png")):
        assert Recipe.read(path) == recipe


def test_gif_and_sheet_are_encoded_once_from_the_exact_frames(gallery, output):
    video = output(fps=60.0)
    result = gallery.add(video)
    threads = [threading.Thread(target=gallery.file, args=(result.id, "sheet.png")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sheet = gallery.file(result.id, "sheet.png")
    np.testing.assert_array_equal(read_image(sheet), contact_sheet(video.frames[0]))
    written = sheet.stat().st_mtime_ns
    assert gallery.file(result.id, "sheet.png").stat().st_mtime_ns == written
    # A gif shows at most 50 frames a second.
    frames, fps = read_video(gallery.file(result.id, "video.gif"))
    assert (len(frames), fps) == (15, 50.0)
    assert sorted(path.name for path in sheet.parent.iterdir()) == sorted(
        [*FILES, "result.json", "sheet.png", "video.gif"]
    )


def corrupt(folder, how: str) -> None:
    if how == "cut video":
        content = (folder / "video.mp4").read_bytes()
        (folder / "video.mp4").write_bytes(content[: len(content) // 2])
    elif how in ("frames.zip", "recipe.json", "result.json"):
        (folder / how).unlink()
    elif how == "no json":
        (folder / "result.json").write_text("{")
    elif how == "other json":
        (folder / "result.json").write_text("[1]")
    else:
        properties = json.loads((folder / "result.json").read_text())
        properties["frames"] = how
        (folder / "result.json").write_text(json.dumps(properties))


@pytest.mark.parametrize(
    "how", ["cut video", "frames.zip", "recipe.json", "result.json", "no json", "other json", "many frames"]
)
def test_an_incomplete_result_is_skipped_and_logged(gallery, output, caplog, how):
    good, bad = gallery.add(output(1)), gallery.add(output(2))
    corrupt(gallery.folder / bad.id, how)
    again = Gallery(gallery.folder, 10)
    assert [result.id for result in again.page(10)[0]] == [good.id]
    assert f"{bad.id} is passed over" in caplog.text
    assert (gallery.folder / bad.id).is_dir()  # it is not deleted


def test_other_files_in_the_folder_are_left_alone(gallery, output):
    (gallery.folder / "notes.txt").write_text("mine")
    (gallery.folder / "0123456789abcdef").write_text("a file")
    (gallery.folder / "other").mkdir()
    gallery.add(output())
    assert len(Gallery(gallery.folder, 10)) == 1
    assert (gallery.folder / "notes.txt").read_text() == "mine"
    assert (gallery.folder / "other").is_dir()


def test_an_error_while_writing_leaves_nothing(gallery, output, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("videogen_jax.studio.gallery.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        gallery.add(output())
    assert list(gallery.folder.iterdir()) == []
    assert len(gallery) == 0


def test_the_oldest_unpinned_result_is_deleted_when_the_gallery_is_full(tmp_path, output):
    gallery = Gallery(tmp_path / "gallery", 4)
    ids = [gallery.add(output(seed)).id for seed in range(3)]
    gallery.pin(ids[0], True)
    gallery.pin(ids[2], True)
    with pytest.raises(Refused, match="Half of the 4 results") as refused:
        gallery.pin(ids[1], True)
    assert refused.value.status == 409
    ids += [gallery.add(output(seed)).id for seed in range(3, 6)]
    left = [ids[5], ids[4], ids[2], ids[0]]
    assert [result.id for result in gallery.page(10)[0]] == left
    assert sorted(path.name for path in gallery.folder.iterdir()) == sorted(left)
    # Pinned results are still pinned after a restart with a smaller gallery.
    assert [result.id for result in Gallery(gallery.folder, 2).page(10)[0]] == [ids[2], ids[0]]
    gallery.pin(ids[0], False)
    assert not Gallery(gallery.folder, 2).get(ids[0]).pinned


def test_pages(gallery, output):
    ids = [gallery.add(output(seed)).id for seed in range(5)][::-1]
    first, after = gallery.page(2)
    assert ([result.id for result in first], after) == (ids[:2], ids[1])
    rest, after = gallery.page(3, after)
    assert ([result.id for result in rest], after) == (ids[2:], None)


def test_a_folder_that_cannot_be_written_is_rejected(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--gallery .* cannot be written: Not a directory"):
        Gallery(tmp_path / "file" / "gallery", 10)


# Over HTTP.


def test_a_frame_as_reference_is_exactly_that_frame(studio, client, fake):
    result = studio.make(client, seed=5)
    studio.make(client, reference={"result": result["id"], "frame": 6})
    reference = studio.pipeline.calls[-1]["reference"]
    np.testing.assert_array_equal(reference, fake.picture(5, 6))
    response = client.get(f"/api/v1/results/{result['id']}/frames/6.png")
    np.testing.assert_array_equal(read_image(io.BytesIO(response.content)), reference)
    job = client.get("/api/v1/jobs").json()["jobs"][-1]
    assert job["settings"]["reference"] == {"result": result["id"], "frame": 6}
    assert "reference" not in [stage["name"] for stage in job["stages"]]
    response = client.post("/api/v1/jobs", json={"prompt": "a", "reference": {"result": result["id"], "frame": 15}})
    assert response.status_code == 422
    assert "frame is 15, but the video has frames 0 to 14" in response.json()["error"]


def test_a_reference_outlives_its_deleted_result(studio, client, fake):
    result = studio.make(client, seed=5)
    with studio.busy(client):
        job = studio.submit(client, reference={"result": result["id"], "frame": 1})
        assert client.delete(f"/api/v1/results/{result['id']}").status_code == 200
    assert studio.wait(client, job)["state"] == "done"
    np.testing.assert_array_equal(studio.pipeline.calls[-1]["reference"], fake.picture(5, 1))


def test_files_are_served_with_ranges_names_and_types(studio, client):
    result = studio.make(client, prompt="a small red circle: \u201cround\u201d/../\u25cf", seed=4)
    whole = client.get(result["video"])
    assert whole.headers["content-type"] == "video/mp4"
    assert "content-disposition" not in whole.headers
    assert "immutable" in whole.headers["cache-control"]
    part = client.get(result["video"], headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, whole.content[10:30])
    assert part.headers["content-range"] == f"bytes 10-29/{len(whole.content)}"
    assert client.get(result["video"], headers={"Range": "bytes=99999999-"}).status_code == 416
    again = client.get(result["video"], headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (again.status_code, len(again.content)) == (200, len(whole.content))
    names = {
        "video": "a-small-red-circle-round-4.mp4",
        "gif": "a-small-red-circle-round-4.gif",
        "sheet": "a-small-red-circle-round-4-sheet.png",
        "reference": "a-small-red-circle-round-4-reference.png",
    }
    for field, name in names.items():
        response = client.get(result[field], params={"download": 1})
        assert response.status_code == 200
        assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
    frame = client.get(f"/api/v1/results/{result['id']}/frames/3.png?download=1")
    assert frame.headers["content-disposition"] == 'attachment; filename="a-small-red-circle-round-4-frame-3.png"'
    assert Recipe.from_json(client.get(f"/api/v1/results/{result['id']}/recipe.json").text).seed == 4
    with Image.open(io.BytesIO(client.get(result["poster"]).content)) as image:
        assert image.size == (32, 32)


def test_results_are_listed_pinned_and_deleted(studio, client):
    first, second = studio.make(client), studio.make(client)
    listed = client.get("/api/v1/results", params={"limit": 1}).json()
    assert ([result["id"] for result in listed["results"]], listed["next"]) == ([second["id"]], second["id"])
    listed = client.get("/api/v1/results", params={"before": second["id"]}).json()
    assert (listed["results"], listed["next"]) == ([first], None)
    url = f"/api/v1/results/{first['id']}"
    assert client.patch(url, json={"pinned": True}).json() == first | {"pinned": True}
    assert client.get(url).json()["pinned"]
    assert client.patch(url, json={"pinned": "yes"}).status_code == 422
    assert client.delete(url).json()["id"] == first["id"]
    assert client.get(url).status_code == client.get(first["video"]).status_code == 404
    assert client.delete(url).status_code == 404
    assert [path.name for path in studio.gallery.folder.iterdir()] == [second["id"]]
