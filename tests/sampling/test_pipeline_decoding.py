"""Decoding in windows: its memory does not grow with the video, and its frames are the whole decode's."""

import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.models.autoencoder import TemporalDecoder
from videogen_jax.sampling.generate import ArrayExecutor, decode_in_windows

CHUNK, OVERLAP = 8, 2


@pytest.fixture(scope="module")
def decoder():
    """A small video decoder whose temporal layers all do something, and its parameters."""
    network = TemporalDecoder(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
    params = network.init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 4)))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.jit(network.apply), {"params": tree.unflatten(moved)}


def latents(num_frames):
    return np.random.default_rng(0).normal(size=(1, num_frames, 4, 4, 4)).astype(np.float32)


def in_windows(run, params, video, overlap=OVERLAP):
    decode = functools.partial(run, params)
    pieces = decode_in_windows(ArrayExecutor(None, None), decode, video, video.shape[1], CHUNK, overlap)
    return [piece.copy() for piece in pieces]


def test_windows_of_every_length_are_one_shape(decoder):
    _, params = decoder
    shapes = set()

    def run(params, window):
        shapes.add(window.shape)
        return np.zeros((*window.shape[:2], 8, 8, 3), np.uint8)

    for count in (CHUNK, 11, 16, 64):
        in_windows(run, params, latents(count))
    assert shapes == {(1, CHUNK, 4, 4, 4)}


def test_videos_of_two_lengths_share_a_program_smaller_than_the_whole_decode(tiny_pipeline):
    image = np.zeros((16, 16, 3), np.uint8)
    for count in (4, 7):
        tiny_pipeline("a red circle", reference=image, num_frames=count, decode_chunk=3, decode_overlap=1)
    programs = {
        key: made.executable.result() for key, made in tiny_pipeline.programs._programs.items() if key[0] == "decode"
    }
    (program,) = [made for key, made in programs.items() if key[1] == 1 and key[2] == (16, 16) and key[-1] == 3]
    params, window = program.in_avals[0]
    whole = jax.ShapeDtypeStruct((1, 7, *window.shape[2:]), window.dtype)
    whole = jax.jit(tiny_pipeline.decode).lower(params, whole).compile()
    assert program.memory_analysis().temp_size_in_bytes < 0.75 * whole.memory_analysis().temp_size_in_bytes


def test_more_videos_are_decoded_in_the_memory_of_one(tiny_pipeline):
    def temporaries(batch):
        params = tiny_pipeline.params["video_decoder"]
        window = jax.ShapeDtypeStruct((batch, 4, 8, 8, 4), jnp.float32)
        compiled = jax.jit(tiny_pipeline.decode).lower(params, window).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(4) < 1.2 * temporaries(1)


def test_the_loop_over_windows_holds_one_window_at_a_time():
    def peak(count):
        video = latents(count)
        run = lambda *args: np.zeros((1, CHUNK, 64, 64, 3), np.uint8)  # noqa: E731
        tracemalloc.start()
        for _ in decode_in_windows(ArrayExecutor(None, None), run, video, count, CHUNK, OVERLAP):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(16)
    assert peak(256) < 1.2 * peak(16)


def test_windows_give_the_whole_decode(decoder):
    """Up to the context beyond a window, and group norms whose statistics are taken over a window's frames."""
    apply, params = decoder
    video = latents(20)
    whole = np.asarray(apply(params, video))

    def error(overlap):
        frames = np.concatenate(in_windows(apply, params, video, overlap), axis=1)
        assert frames.shape == whole.shape
        return np.abs(frames - whole).mean()

    between_frames = np.abs(whole[:, 1:] - whole[:, :-1]).mean()
    assert error(OVERLAP) < error(0)
    assert error(OVERLAP) < 0.25 * between_frames
