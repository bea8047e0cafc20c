"""Frontend tests run on the interpreter, which needs no backend; a few name other devices."""

import pytest

from tinycore.config import override


@pytest.fixture(autouse=True)
def on_interpreter(request):
    """Use the device of last resort, unless a test is marked with ``device``."""
    if request.node.get_closest_marker("device"):
        yield
        return
    with override(device="INTERPRETER"):
        yield
