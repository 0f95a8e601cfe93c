"""Chip specifications, and the lower bounds on the time of a step."""

import pytest

from videogen_jax.scaling.chips import CHIPS, chip_hours, least_time, parse_topology


def test_chips_match_the_published_pods():
    """Google states 50.63 PFLOP/s (v5e) and 234.9 PFLOP/s (v6e) for a pod of 256 chips."""
    assert 256 * CHIPS["v5e"].flops / 1e15 == pytest.approx(50.63, rel=0.01)
    assert 256 * CHIPS["v6e"].flops / 1e15 == pytest.approx(234.9, rel=0.01)
    # The bisection of a 16x16 torus has 32 links: 1.6 and 3.2 TB/s.
    assert 32 * CHIPS["v5e"].link_bandwidth / 1e12 == pytest.approx(1.6)
    assert 32 * CHIPS["v6e"].link_bandwidth / 1e12 == pytest.approx(3.2)


def test_topologies():
    assert parse_topology("v5e:16x16") == (CHIPS["v5e"], (16, 16))
    assert parse_topology("v5p:4x4x4") == (CHIPS["v5p"], (4, 4, 4))


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e", "must be a chip and the shape"),
        ("v5e:16x", "must be a chip and the shape"),
        ("v2:4x4", "'v2'; the known ones are v5e, v5p, v6e"),
        ("v5e:4x4x4", "a pod of v5e has 2 sizes, as in v5e:4x4"),
        ("v5p:4x4", "a pod of v5p has 3 sizes"),
        ("v5e:0x4", "has 2 sizes"),
    ],
)
def test_invalid_topologies_are_rejected(topology, message):
    with pytest.raises(ValueError, match=message):
        parse_topology(topology)


def test_least_time_names_the_bottleneck():
    chip = CHIPS["v5e"]
    step = least_time(chip, flops=197e12, traffic=0.819e9, sent=10e9)
    assert (step.compute, step.memory, step.network) == pytest.approx((1.0, 1e-3, 0.1))
    assert step.seconds == 1.0
    assert step.bound_by == "compute"
    assert least_time(chip, 1e9, 819e9, 0).bound_by == "memory"
    assert least_time(chip, 1e9, 1e6, 100e9).bound_by == "network"


def test_chip_hours():
    assert chip_hours(0.5, 7200, (16, 16)) == 256
