"""What `pytest -m quick` runs is there, and leaves out no folder of the package."""

from pathlib import Path

import videogen_jax

TESTS = Path(__file__).parent


def test_quick_tests_exist_and_are_of_every_folder(pytestconfig):
    (conftest,) = (p for p in pytestconfig.pluginmanager.get_plugins() if hasattr(p, "QUICK"))
    for name in conftest.QUICK:
        file, _, test = name.partition("::")
        assert f"def {test}" in (TESTS / file).read_text(), name
    package = Path(videogen_jax.__file__).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert len(folders) > 10
    assert folders <= {name.split("/")[0] for name in conftest.QUICK}
