"""Makes `kernels` importable by the tests of this folder (pytest imports them without a package)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
