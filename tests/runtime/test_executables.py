"""Executables on disk: found again, and passed over where they are not what is asked for."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from videogen_jax.runtime import executables
from videogen_jax.runtime.executables import Executables, keep_executables
from videogen_jax.sampling.programs import Programs

X = np.arange(6, dtype=np.float32)
KEY = ("double", 1)


@pytest.fixture(autouse=True)
def jaxs_cache():
    """JAX's cache as it was, after the test."""
    before = jax.config.jax_enable_compilation_cache
    yield
    executables._use_jaxs_cache(before)


@pytest.fixture
def folder(tmp_path):
    return keep_executables(tmp_path)


def double(traced, tree):
    traced.append(1)
    return {"twice": 2 * tree["x"], "shift": tree["x"] + 1}


def run(folder, traced, x=X, model="a model", **arguments):
    """Run the program as a process does that has just begun, and wait until all is written."""
    programs = Programs(executables=Executables(folder, model))
    result = programs.run(KEY, functools.partial(double, traced), {"x": x}, **arguments)
    programs._pool.shutdown()
    np.testing.assert_array_equal(result["twice"], 2 * np.asarray(X))
    return programs


def test_a_later_process_traces_nothing(folder, compilations):
    traced = []
    run(folder, traced)
    compilations.clear()
    programs = run(folder, traced)
    assert (len(traced), len(compilations), len(list(folder.iterdir()))) == (1, 0, 1)
    shapes = programs._programs[KEY].shapes.result()
    assert shapes == {name: jax.ShapeDtypeStruct((6,), jnp.float32) for name in ("twice", "shift")}


def test_donated_arguments_are_donated(folder):
    traced = []
    for _ in range(2):
        x = jnp.asarray(X)
        run(folder, traced, x, donate=(0,))
        assert x.is_deleted()
    assert len(traced) == 1


@pytest.mark.parametrize("change", ["model", "shape", "code", "settings"])
def test_what_depends_on_something_else_is_not_found(folder, change, monkeypatch):
    traced = []
    run(folder, traced)
    if change == "model":
        run(folder, traced, model="another")
    elif change == "shape":
        assert Executables(folder, "a model").find(KEY, ({"x": X[:3]},)) is None
        return
    else:
        if change == "code":
            monkeypatch.setattr(executables, "_code", lambda: "another")
        else:
            monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=false")
        run(folder, traced)
    assert len(traced) == 2


@pytest.mark.parametrize("damage", ["empty", "short", "foreign", "flipped"])
def test_a_damaged_file_is_passed_over_and_written_anew(folder, damage, caplog):
    traced = []
    run(folder, traced)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    half = bytes(content[: len(content) // 2])
    path.write_bytes({"empty": b"", "short": half, "foreign": b"text", "flipped": bytes(content)}[damage])
    run(folder, traced)
    assert str(path) in caplog.text
    run(folder, traced)
    assert len(traced) == 2


def test_a_folder_that_others_may_write_is_not_read(tmp_path, caplog):
    folder = keep_executables(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert keep_executables(tmp_path) is None
    assert "others may write to it" in caplog.text
    assert keep_executables(None) is None


def test_a_backend_that_cannot_write_them_keeps_jaxs_cache(tmp_path, monkeypatch):
    executables._use_jaxs_cache(True)

    def fail(compiled):
        raise NotImplementedError

    monkeypatch.setattr(executables.serialize_executable, "serialize", fail)
    assert keep_executables(tmp_path) is None
    assert jax.config.jax_enable_compilation_cache


def test_the_folder_stays_within_its_bound(folder, monkeypatch):
    store = Executables(folder, "a model")
    compiled = jax.jit(lambda x: x + 1).lower(X).compile()
    shapes = jax.ShapeDtypeStruct((6,), jnp.float32)
    for number in range(3):
        store.keep((f"program_{number}",), X, compiled, shapes)
        os.utime(store._path((f"program_{number}",), X), (number, number))
    (size,) = {path.stat().st_size for path in folder.iterdir()}
    assert store.find(("program_0",), X) is not None  # now it has been used last
    monkeypatch.setattr(executables, "MOST_BYTES", 2 * size)
    store.keep(("program_3",), X, compiled, shapes)
    names = sorted(path.name.split("-")[0] for path in folder.iterdir())
    assert names == ["program_0", "program_3"]


def test_a_full_disk_is_named_and_costs_nothing_else(folder, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(executables, "write_atomically", fail)
    traced = []
    run(folder, traced)
    assert "the program double is not kept: [Errno 28] No space left on device" in caplog.text
