"""Improves the tilings that `pass_tile` chose, by measuring candidates on the device.

Nothing is measured unless it is asked for: `TINYCORE_SEARCH=60 python program.py`, `with tuned(60): ...`, or
`tinycore search`. What was found is kept on disk, and applied by every later process without measuring.
"""

from tinycore_pass_search.session import SearchWarning, Tuning, run, tuned
from tinycore_pass_search.store import Record

__all__ = ["Record", "SearchWarning", "Tuning", "run", "tuned"]
