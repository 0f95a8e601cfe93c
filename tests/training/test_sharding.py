"""Steps on meshes of eight CPU devices against those of one device, each mesh in a process of its own."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("text", "autoencoder", "reference", "cascade", "temporal", "decoder", "classifier")
# data, fsdp, frames, tensor
MESHES = ("8x1x1x1", "1x8x1x1", "2x2x1x2", "1x4x1x2")
WITH_FRAMES = ("2x2x2x1", "1x2x2x2", "2x1x4x1")


@pytest.fixture(scope="session")
def on_meshes(run_command):
    """What on_meshes.py finds of some stages on some meshes."""

    def run(stages, meshes):
        done = run_command("tests.training.on_meshes", ",".join(stages), *meshes, devices=8)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def check(result, meshes):
    for mesh in meshes:
        of_mesh = result["meshes"][mesh]
        np.testing.assert_allclose(of_mesh["losses"], of_mesh["alone"], rtol=1e-5, err_msg=mesh)
        alone = of_mesh["moments_alone"]
        least = 1e-4 * max(alone.values())  # some gradients are zero but for rounding
        for name, moment in of_mesh["moments"].items():
            np.testing.assert_allclose(moment, alone[name], rtol=1e-3, atol=least, err_msg=f"{mesh}: {name}")
        first, _, last = of_mesh["losses"]
        assert last != first  # the first step's learning rate is zero, the second's is not
        _, fsdp, _, tensor = map(int, mesh.split("x"))
        # What the mesh promises: everything over fsdp, the parallel layers over tensor besides. Biases and norms are
        # too small to be spread, and are a larger share of tiny networks.
        parallel, whole = result["parallel"], result["bytes"]
        promised = (whole - parallel) / fsdp + parallel / (fsdp * tensor)
        params, ema, moments = of_mesh["held"]
        assert promised <= params <= 1.04 * promised + 0.02 * whole, (mesh, params, promised, whole)
        assert ema == params
        assert abs(moments - 2 * params) < 64  # two moments, and counters


def test_a_tiny_text_encoder_on_a_mesh_of_three_axes(on_meshes):
    check(on_meshes(["text"], ["2x2x1x2"])["text"], ["2x2x1x2"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_three_steps_on_every_mesh_are_those_of_one_device(on_meshes, stage):
    result = on_meshes([stage], MESHES)[stage]
    check(result, MESHES)
    assert result["parallel"] > 0.05 * result["bytes"]  # of the classifier the last layers alone


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["cascade", "decoder"])
def test_three_steps_with_frames_over_devices_are_those_of_one_device(on_meshes, stage):
    check(on_meshes([stage], WITH_FRAMES)[stage], WITH_FRAMES)


GATHERS = """
import json, re
from tests.training import on_meshes
from videogen_jax.scaling.hlo import parse, runs, shape_bytes

unet = {**on_meshes.UNET, "block_out_channels": (32,), "cross_attention": (True,), "reference_attention": True}
settings = {"unet": unet, "schedule": on_meshes.SCHEDULE, "resolution": 32, "lower_resolution": 16}
found = {}
for name, sizes, rows in (("fsdp", {"data": 2, "fsdp": 4}, 8), ("tensor", {"data": 2, "fsdp": 2, "tensor": 2}, 4),
                          ("frames", {"data": 2, "fsdp": 2, "frames": 2}, 4)):
    batch = on_meshes.make_batch("cascade", rows, 32)
    _, state, compiled = on_meshes.train("cascade", sizes, None, batch, settings, steps=1)
    computations, entry = parse(compiled.as_text())
    gathers = [i for instructions, _ in runs(computations, entry) for i in instructions
               if i.opcode.startswith("all-gather")]
    frames = 4 // sizes.get("frames", 1)
    found[name] = {
        "gathers": sorted(((shape_bytes(i.result), i.result.strip()) for i in gathers), reverse=True)[:5],
        "activation": frames * 32 * 32 * 32 * 4,  # of a device, at the network's width
        "parameter": max(x.nbytes for x in on_meshes.jax.tree.leaves(state.params)),
    }
print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_activation_is_gathered(run_command):
    """Parameters are gathered, activations are not: over frames they are exchanged, and over tensor summed.

    Over tensor one activation at a time is, for the temporal convolution between each pair of convolutions, which mixes
    the channels that the first of the pair has spread. To sum its results would send twice as much.
    """
    done = run_command("-c", GATHERS, devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        largest = found["gathers"][0][0]
        assert 0 < largest < found["activation"] + (name == "tensor"), (name, found)
