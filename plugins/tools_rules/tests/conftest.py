"""Rule files made of a few lines."""

import itertools

import pytest
from tinycore_tools_rules.sources import open_source, units_of
from tinycore_tools_rules.verify import verify_unit

from tinycore import rules
from tinycore.config import override


@pytest.fixture(autouse=True)
def own_caches(tmp_path):
    """Nothing of this machine's caches is read or written."""
    with override(cache_directory=tmp_path / "cache"):
        yield


@pytest.fixture
def written(tmp_path):
    """Writes a text as a rule file of its own; answers where."""
    numbers = itertools.count()

    def write(text):
        path = tmp_path / f"file{next(numbers)}.rules"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def load(written):
    """Loads a text as a file of its own."""
    return lambda text: rules.load_file(written(text))


@pytest.fixture
def units(written):
    """The rules of a text; a text that is only rules stands in a group."""

    def make(text, group="group g(fixpoint)"):
        path = written(text if "group" in text else f"{group} {{\n{text}\n}}\n")
        return units_of(open_source(str(path)))

    return make


@pytest.fixture
def verified(units):
    """The result of verifying the only rule of a text."""

    def verify(text, group="group g(fixpoint)"):
        (unit,) = units(text, group)
        return verify_unit(unit)

    return verify
