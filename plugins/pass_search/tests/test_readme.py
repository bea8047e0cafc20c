"""The example of the README runs."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_examples_run(cache):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {"__name__": "example"})
