"""A profile of some steps."""

import jax
import pytest

from videogen_jax.training.loop import train
from videogen_jax.training.profiling import FOLDER, Profile, parse_steps


def test_the_steps_that_were_named_are_traced(config, stage, source, tmp_path):
    train(config, stage, source, tmp_path, profile_steps=range(3, 5))
    (path,) = (tmp_path / FOLDER).rglob("*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    names = [event.name for plane in planes for line in plane.lines for event in line.events]
    assert names.count("train") == 2


def test_a_trace_ends_with_the_run(tmp_path):
    profile = Profile(tmp_path, range(1, 100))
    with profile.step(1):
        result = jax.numpy.zeros(())
    profile.after(1, result)
    profile.close()
    assert list((tmp_path / FOLDER).rglob("*.xplane.pb"))
    profile.close()


@pytest.mark.parametrize("text", ["5", "5:5", "6:5", "0:2", "a:b", "-1:3"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="must be the first step and the one after the last, as 100:105"):
        parse_steps(text)


def test_steps_are_parsed():
    assert list(parse_steps("100:105")) == [100, 101, 102, 103, 104]
