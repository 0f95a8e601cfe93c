import json
import shutil
import threading

import numpy as np
import pytest

from tests.tiny_model import write_tiny_model
from videogen_jax.sampling.generate import decoding_windows
from videogen_jax.sampling.pipeline import VideoGenPipeline
from videogen_jax.sampling.programs import Programs
from videogen_jax.sampling.request import SamplingRequest

CIRCLE, SQUARE = "a small red circle moving right slowly on a gray background", "a large blue square growing"


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    return tiny_pipeline


@pytest.fixture(scope="module")
def pair(pipeline):
    """Two prompts at once, and what the callback was called with."""
    calls = []
    return pipeline([CIRCLE, SQUARE], seed=[3, 4], callback=lambda *call: calls.append(call)), calls


def parts_without(tiny_model, folder, *missing):
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns(*missing), dirs_exist_ok=True)
    return folder


def test_frames_and_reference(pair):
    output, _ = pair
    assert output.frames.shape == (2, 7, 16, 16, 3)  # 4 base frames, doubled
    assert output.frames.dtype == output.reference.dtype == np.uint8
    assert output.reference.shape == (2, 16, 16, 3)
    assert output.fps == 15.0
    assert np.all(output.frames.std(axis=(1, 2, 3, 4)) > 1)


def test_callback_hears_of_every_stage_in_order(pair):
    output, calls = pair
    ends = list(dict.fromkeys((stage, of) for stage, step, of, _ in calls if step == of))
    assert ends == [("text", 1), ("reference", 2), ("cascade_4", 2), ("cascade_8", 2), ("temporal", 1), ("decode", 5)]
    previews = {stage: preview for stage, step, of, preview in calls if step == of and preview is not None}
    np.testing.assert_array_equal(previews["reference"], output.reference)
    decoded = [preview for stage, _, _, preview in calls if stage == "decode" and preview is not None]
    np.testing.assert_array_equal(np.concatenate(decoded, axis=1), output.frames)


def test_a_batch_gives_what_single_prompts_give(pipeline, pair):
    single = pipeline(SQUARE, seed=4)
    for one, two in ((single.reference[0], pair[0].reference[1]), (single.frames[0], pair[0].frames[1])):
        assert np.max(np.abs(one.astype(int) - two.astype(int))) <= 1


def test_another_prompt_compiles_nothing(pipeline, pair, compilations):
    count = len(pipeline.programs)
    other = pipeline(
        [SQUARE, CIRCLE],
        seed=11,
        guidance_scale=3.5,
        noise_level=20,
        num_frames=6,
        fps=9,
        callback=lambda *_: None,
    )
    assert not compilations
    assert len(pipeline.programs) == count
    assert other.frames.shape == (2, 6, 16, 16, 3)
    assert other.fps == 9


def test_a_smaller_batch_is_filled_up(pipeline, pair, compilations):
    filled = pipeline(CIRCLE, seed=3, batch_size=2)
    assert not compilations
    np.testing.assert_array_equal(filled.frames, pair[0].frames[:1])
    np.testing.assert_array_equal(filled.reference, pair[0].reference[:1])


def test_a_given_reference_takes_the_way_of_a_drawn_one(pipeline, pair, compilations):
    output, _ = pair
    calls = []
    given = pipeline(
        [CIRCLE, SQUARE], seed=[3, 4], reference=list(output.reference), callback=lambda *call: calls.append(call[0])
    )
    np.testing.assert_array_equal(given.frames, output.frames)
    assert "reference" not in calls
    assert not compilations


def test_nothing_prepares_programs_but_the_walk(pipeline, pair, caplog):
    """What runs over shapes is what runs over arrays: none is left for the caller's thread to prepare."""
    pipeline([CIRCLE, SQUARE], seed=[3, 4])
    assert "could not be prepared ahead" not in caplog.text


def test_seed_prompt_and_scales_matter(pipeline, pair):
    def frames(prompts=(CIRCLE, SQUARE), **changed):
        return pipeline(list(prompts), **{"seed": [3, 4], **changed}).frames

    for other in (frames(seed=[4, 3]), frames((SQUARE, CIRCLE)), frames(guidance_scale=6.0), frames(noise_level=900)):
        assert not np.array_equal(other, pair[0].frames)


def test_reference_images_are_cut_square_and_resized(pipeline, pair):
    wide = np.zeros((50, 90, 3), np.uint8)
    wide[:, 20:70] = (200, 100, 50)
    output = pipeline([CIRCLE, SQUARE], reference=wide)
    np.testing.assert_array_equal(output.reference, np.broadcast_to((200, 100, 50), (2, 16, 16, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": " "}, "a prompt must be a string that is not empty"),
        ({"prompts": [CIRCLE, SQUARE], "batch_size": 1}, "batch_size is 1, but must be at least 2"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": [1, 2]}, "2 seeds were given for 1 prompts"),
        ({"num_frames": 14}, "num_frames is 14, but the model makes 2 to 13 frames"),
        ({"steps": 0}, "steps is 0"),
        ({"decode_chunk": 2}, "decode_chunk is 2"),
        ({"size": (16, 30)}, "size is 16x30, but height and width must be multiples of 4"),
        ({"size": (0, 16)}, "size is 0x16"),
        ({"reference": np.zeros((8, 8, 3), np.float32)}, "a reference image is uint8"),
        ({"reference": [np.zeros((8, 8, 3), np.uint8)] * 3}, "3 reference images were given for 1 prompts"),
    ],
)
def test_wrong_arguments_are_refused_before_compiling(pipeline, compilations, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompts": CIRCLE, **arguments})
    assert not compilations


def test_unknown_words_and_long_prompts_give_warnings(pipeline):
    with pytest.warns(UserWarning, match=r"does not know 'zebra'; the words it knows are a, background, black"):
        pipeline.inputs(SamplingRequest.from_keywords("a red zebra").resolve(pipeline.index))
    with pytest.warns(UserWarning, match="exceed 16 tokens and are truncated"):
        pipeline.inputs(SamplingRequest.from_keywords(" ".join(["red"] * 20)).resolve(pipeline.index))


def test_missing_parts_are_replaced_with_a_warning(tiny_model, tmp_path, caplog):
    folder = parts_without(tiny_model, tmp_path, "temporal_upsampler", "video_decoder", "unet")
    with caplog.at_level("WARNING", logger="absl"):
        pipeline = VideoGenPipeline.from_pretrained(folder)
    for part in ("temporal_upsampler", "video_decoder", "unet"):
        assert caplog.text.count(f"The model has no {part}") == 1
    with pytest.raises(ValueError, match="no unet that could draw the reference image"):
        pipeline(CIRCLE)
    image = np.full((16, 16, 3), 90, np.uint8)
    short, whole = (pipeline(CIRCLE, reference=image, decode_chunk=chunk) for chunk in (3, 4))
    assert short.frames.shape == (1, 4, 16, 16, 3)
    # The image decoder knows no neighbours, so chunks make no difference to it.
    assert np.max(np.abs(short.frames.astype(int) - whole.frames.astype(int))) <= 1


def test_another_model_draws_the_reference(tiny_model, pipeline, pair, tmp_path):
    other = write_tiny_model(tmp_path, seed=50)
    swapped = VideoGenPipeline.from_pretrained(tiny_model, reference_model=other)
    asked = swapped.index.stage_settings["reference"]
    assert (asked.sampler, asked.steps, asked.guidance_scale) == ("ddim", 30, 7.5)  # its scheduler's, not the model's
    settings = {"steps": {"reference": 2}, "guidance_scale": {"reference": 2.0}, "sampler": {"reference": "dpmpp_2m"}}
    drawn = swapped(CIRCLE, seed=3, **settings)
    assert np.abs(drawn.reference.astype(int) - pair[0].reference[:1]).max() > 20
    own = VideoGenPipeline.from_pretrained(other)(CIRCLE, seed=3).reference
    assert np.abs(drawn.reference.astype(int) - own).max() <= 1
    given = pipeline(CIRCLE, seed=3, reference=drawn.reference[0])  # from there on it is all one
    assert np.abs(drawn.frames.astype(int) - given.frames).max() <= 1


def test_a_stage_that_does_not_fit_is_refused(tiny_model, tmp_path):
    folder = parts_without(tiny_model, tmp_path)
    config = json.loads((folder / "cascade_8" / "config.json").read_text())

    def change(**fields):
        (folder / "cascade_8" / "config.json").write_text(json.dumps({**config, **fields}))

    for fields, message in (
        ({"_class_name": "ReferenceStage"}, "describes a ReferenceStage, but a CascadeStage"),
        ({"resolutions": 4}, "has no field resolutions"),
        ({"unet": {**config["unet"], "block_out_channels": [32]}}, "do not fit the network"),
        ({"lower_resolution": 3}, "takes latents of side 3, but the stage below it in the cascade makes 4"),
    ):
        change(**fields)
        with pytest.raises(ValueError, match=message):
            VideoGenPipeline.from_pretrained(folder)
    shutil.rmtree(folder / "cascade_8")
    with pytest.raises(ValueError, match="cascade_8 does not exist"):
        VideoGenPipeline.from_pretrained(folder)


def test_every_step_is_reported_and_any_number_of_steps_compiles_nothing(pipeline, compilations):
    def reported(steps):
        calls, image = [], np.zeros((16, 16, 3), np.uint8)
        pipeline(CIRCLE, reference=image, steps=steps, num_frames=5, callback=lambda *call: calls.append(call[:3]))
        return list(dict.fromkeys(call for call in calls if call[0] == "cascade_8"))  # reported again while compiling

    assert reported(3) == [("cascade_8", step, 3) for step in range(4)]
    compilations.clear()
    assert reported(5) == [("cascade_8", step, 5) for step in range(6)]
    assert not compilations


def test_previews_show_the_video_so_far(pipeline, pair, compilations):
    calls = {}

    def callback(stage, step, of, preview):
        if step == of and preview is not None:
            calls[stage] = preview

    output = pipeline([CIRCLE, SQUARE], seed=[3, 4], num_frames=6, callback=callback, previews=True)
    np.testing.assert_array_equal(output.frames, pair[0].frames[:, :6])
    shapes = {stage: preview.shape for stage, preview in calls.items()}
    # The base frames at the side of each stage, then all that are asked for.
    assert shapes["cascade_4"] == (2, 4, 8, 8, 3)
    assert shapes["cascade_8"] == (2, 4, 16, 16, 3)
    assert shapes["temporal"] == (2, 6, 16, 16, 3)
    np.testing.assert_array_equal(calls["temporal"][:, ::2], calls["cascade_8"][:, :3])  # given frames stay
    before = calls["cascade_8"]
    pipeline(
        [CIRCLE, SQUARE], seed=[3, 4], num_frames=6, callback=callback, previews=True, decode_chunk=4, decode_overlap=1
    )
    assert np.max(np.abs(calls["cascade_8"].astype(int) - before)) <= 1  # frame by frame, in windows of any length
    assert calls["temporal"].std() > 1


def test_what_the_callback_raises_ends_the_call_between_steps(pipeline, pair, compilations):
    class Cancelled(Exception):
        pass

    calls = []

    def callback(stage, step, of, preview):
        calls.append((stage, step))
        if (stage, step) == ("cascade_4", 1):
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline([CIRCLE, SQUARE], seed=[3, 4], callback=callback)
    assert calls[-1] == ("cascade_4", 1)
    again = pipeline([CIRCLE, SQUARE], seed=[3, 4])
    np.testing.assert_array_equal(again.frames, pair[0].frames)
    assert not compilations


def test_a_call_can_be_ended_while_its_programs_are_compiled():
    programs, begun, go_on = Programs(), threading.Event(), threading.Event()

    def slow_to_trace(x):
        begun.set()
        assert go_on.wait(60)
        return x + 1

    def stop():
        assert begun.wait(60)
        raise KeyboardInterrupt

    preparing = threading.Thread(target=programs.prepare, args=(("program",), slow_to_trace, np.float32(0)))
    preparing.start()
    assert begun.wait(60)
    with pytest.raises(KeyboardInterrupt):
        programs.run(("program",), slow_to_trace, np.float32(1), waiting=stop)
    go_on.set()
    preparing.join()
    assert programs.run(("program",), slow_to_trace, np.float32(1), waiting=lambda: None) == 2


def test_a_failure_to_prepare_is_logged_and_costs_only_time(caplog):
    programs = Programs()

    def walk(prepare):
        prepare(("first",), lambda x: x + 1, np.float32(0))
        raise RuntimeError("lost the way")

    with programs.prepared_by(walk):
        assert programs.run(("first",), lambda x: x + 1, np.float32(1)) == 2
        assert programs.run(("second",), lambda x: x + 2, np.float32(1)) == 3  # prepared by this thread
    assert "Programs could not be prepared ahead: lost the way" in caplog.text


def test_videos_of_other_sizes(pipeline):
    assert pipeline.index.size_multiple == 4
    image = np.zeros((48, 72, 3), np.uint8)
    image[:, 48:] = (250, 20, 20)
    output = pipeline(CIRCLE, size=(16, 24), reference=image, previews=True, callback=lambda *_: None)
    assert output.frames.shape == (1, 7, 16, 24, 3)
    assert output.reference.shape == (1, 16, 24, 3)
    np.testing.assert_array_equal(output.reference[0, :, 0], 0 * image[:16, 0])  # all of the image, none cut off
    np.testing.assert_array_equal(output.reference[0, :, -1], np.broadcast_to((250, 20, 20), (16, 3)))
    drawn = pipeline(CIRCLE, size=(16, 24))
    assert drawn.reference.shape == (1, 16, 24, 3)
    assert drawn.recipes[0].request.size == (16, 24)


def test_a_program_that_fails_is_tried_again():
    programs, calls = Programs(), []

    def fail_once(x):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return x + 1

    for _ in range(2):
        try:
            result = programs.run(("program",), fail_once, np.float32(1))
        except ValueError:
            programs.cancel()
    assert result == 2


@pytest.mark.parametrize("total", [4, 7, 13, 31])
@pytest.mark.parametrize(("chunk", "overlap"), [(3, 1), (4, 0), (4, 1)])
def test_windows_give_every_frame_once_with_context(total, chunk, overlap):
    for count in range(2, total + 1):
        kept = []
        for start, first, end in decoding_windows(count, total, chunk, overlap):
            assert 0 <= start <= first < end <= start + chunk <= total
            assert first - start >= overlap or start == 0
            assert start + chunk - end >= overlap or start + chunk == total
            kept += range(first, end)
        assert kept == list(range(count))
