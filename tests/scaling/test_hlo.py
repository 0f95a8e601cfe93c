"""Collectives and memory traffic of manually sharded programs."""

import json

import jax
import jax.numpy as jnp
import pytest

from videogen_jax.scaling.hlo import collectives, memory_traffic, shape_bytes

# Prints {name: HLO of the compiled program} of programs on two devices. It needs a process of its own, since the number
# of devices is fixed when JAX starts.
PROGRAMS = """
import json
import jax, jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("x")))
programs = {
    "all-gather": (lambda x: lax.all_gather(x, "x", tiled=True), P()),
    "all-reduce": (lambda x: lax.psum(x, "x"), P()),
    "reduce-scatter": (lambda x: lax.psum_scatter(x, "x", tiled=True), P("x")),
    "all-to-all": (lambda x: lax.all_to_all(x, "x", 0, 1, tiled=True), P("x")),
    "collective-permute": (lambda x: lax.ppermute(x, "x", [(0, 1), (1, 0)]), P("x")),
    "loop": (lambda x: lax.fori_loop(0, 7, lambda _, x: jnp.sin(lax.psum(x, "x")), x), P()),
}
texts = {}
for name, (function, out) in programs.items():
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P("x"), out_specs=out, check_vma=False)
    texts[name] = jax.jit(mapped).lower(x).compile().as_text()
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def programs(run_command) -> dict[str, str]:
    done = run_command("-c", PROGRAMS, devices=2, XLA_FLAGS="")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("kind", "size", "sent"),
    [
        # x is float32 (8, 16), split in two: 256 bytes per device, 512 in total
        ("all-gather", 512, 256),
        ("all-reduce", 256, 256),
        ("reduce-scatter", 128, 128),
        ("all-to-all", 256, 128),
        ("collective-permute", 256, 256),
    ],
)
def test_collectives_of_a_manually_sharded_program(programs, kind, size, sent):
    found = collectives(programs[kind], 2)
    assert list(found) == [kind]
    assert (found[kind].count, found[kind].bytes, found[kind].sent) == (1, size, sent)


def test_a_loop_counts_every_iteration(programs):
    found = collectives(programs["loop"], 2)
    assert (found["all-reduce"].count, found["all-reduce"].bytes) == (7, 7 * 256)


LOOP = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[64])) -> (s32[], f32[64]) {
  %state = (s32[]{:T(128)}, f32[64]{0:T(128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[64]{0:T(128)} get-tuple-element(%state), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%count, %one)
  %summed = f32[64]{0:T(128)} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %result = (s32[]{:T(128)}, f32[64]{0:T(128)}) tuple(%next, %summed)
}

%condition (state.1: (s32[], f32[64])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  %state.1 = (s32[]{:T(128)}, f32[64]{0:T(128)}) parameter(0)
  %count.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%count.1, %bound), direction=LT
}

ENTRY %main (x.1: f32[64]) -> (s32[], f32[64]) {
  %zero = s32[]{:T(128)} constant(0)
  %x.1 = f32[64]{0:T(128)} parameter(0)
  %start = (s32[]{:T(128)}, f32[64]{0:T(128)}) tuple(%zero, %x.1)
  ROOT %while = (s32[]{:T(128)}, f32[64]{0:T(128)}) while(%start), condition=%condition, body=%body
}
"""


def test_a_trip_count_is_read_from_the_condition():
    """The TPU compiler does not annotate trip counts."""
    found = collectives(LOOP, 2)
    assert (found["all-reduce"].count, found["all-reduce"].bytes) == (7, 7 * 256)


ASYNC = """HloModule m

%fused (p: f32[4,8]) -> f32[16,8] {
  %p = f32[4,8]{1,0:T(8,128)} parameter(0)
  ROOT %g = f32[16,8]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}, dimensions={0}
}

ENTRY %main (a: f32[4,8], w: bf16[64,128]) -> f32[16,8] {
  %a = f32[4,8]{1,0:T(8,128)} parameter(0)
  %w = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %c = (bf16[64,128]{1,0:S(1)}, bf16[64,128]{1,0}, u32[]{:S(2)}) copy-start(%w)
  %d = bf16[64,128]{1,0:S(1)} copy-done(%c)
  %gs = (f32[4,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%a), replica_groups=[1,4]<=[4], dimensions={0}
  %gd = f32[16,8]{1,0} all-gather-done(%gs)
  %r = f32[16,8]{1,0} all-reduce(%gd), replica_groups=mesh['a'=2,'b'=2] {'a'}, to_apply=%add
  %cp = (f32[16,8]{1,0}, f32[16,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%r)
  %cd = f32[16,8]{1,0} collective-permute-done(%cp)
  ROOT %f = f32[16,8]{1,0} fusion(%a), kind=kCustom, calls=%fused
}
"""


def test_the_notation_of_the_tpu_compiler():
    found = collectives(ASYNC, 4)
    gathered = 16 * 8 * 4
    assert (found["all-gather"].count, found["all-gather"].bytes) == (2, 2 * gathered)
    assert found["all-gather"].sent == 2 * gathered * 3 / 4
    assert found["all-reduce"].sent == gathered  # a group of two devices: twice one half
    assert found["collective-permute"].bytes == gathered


def test_traffic_leaves_out_on_chip_memory():
    """The copy reads 16 KiB of HBM; the others read and write their operands and results."""
    small, large, weights = 4 * 8 * 4, 16 * 8 * 4, 64 * 128 * 2
    expected = weights + (small + small + large) + 2 * large + (large + 2 * large) + (small + large)
    assert memory_traffic(ASYNC) == expected


def test_traffic_of_an_elementwise_program():
    text = jax.jit(lambda x, y: x * y + 1).lower(jnp.ones((64, 64)), jnp.ones((64, 64))).compile().as_text()
    assert memory_traffic(text) == 3 * 64 * 64 * 4


@pytest.mark.parametrize("trip_count", [8, 32])
def test_traffic_of_a_loop_over_slices(trip_count):
    """Whatever the trip count, x is read once and the result written once, as is the intermediate array."""
    x = jnp.ones((trip_count, 2**19 // trip_count))
    text = jax.jit(lambda x: jax.lax.map(jnp.sin, x)).lower(x).compile().as_text()
    assert 2 * x.nbytes <= memory_traffic(text) <= 4.01 * x.nbytes


def test_shape_bytes():
    assert shape_bytes("(f32[2,3]{1,0}, bf16[4]{0}, pred[5], s4[8])") == 24 + 8 + 5 + 4
    assert shape_bytes("f8e4m3fn[16]") == 16
    assert shape_bytes("bf16[8]{0:T(128)S(1)}", memory_only=True) == 0


def test_text_that_is_not_hlo_is_rejected():
    with pytest.raises(ValueError, match="no entry computation"):
        collectives("hello", 1)
