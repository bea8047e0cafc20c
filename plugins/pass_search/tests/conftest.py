"""Kernels to search, and a cache directory of each test's own."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "pass_tile" / "tests")]


@pytest.fixture
def cache(tmp_path):
    from tinycore.config import override
    from tinycore.runtime.compiler import forget_loaded

    forget_loaded()
    with override(cache_directory=tmp_path / "cache", cache=True):
        yield tmp_path / "cache"
    forget_loaded()
