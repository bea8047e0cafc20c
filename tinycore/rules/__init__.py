"""The rule language: `.rules` files, compiled to Python and driven over graphs.

>>> import tempfile, pathlib
>>> from tinycore import rules
>>> from tinycore.ir import UOp, dtypes
>>> with tempfile.TemporaryDirectory() as folder:
...     path = pathlib.Path(folder, "mine.rules")
...     _ = path.write_text("group mine(fixpoint) { one: x * 1 => x }")
...     mine = rules.load_file(path).groups["mine"]
>>> n = UOp.variable("n", 1, 9)
>>> mine(n * 1) is n
True

`specs/rules.md` is the reference of the language.
"""

from tinycore.rules.extra import active_extra, extra_rules
from tinycore.rules.loading import load, load_file, load_text, precompile
from tinycore.rules.module import Group, Memo, Pass, Renders, RuleModule
from tinycore.rules.tracing import Event, RuleInfo, Trace, trace

__all__ = [
    "Event",
    "Group",
    "Memo",
    "Pass",
    "Renders",
    "RuleInfo",
    "RuleModule",
    "Trace",
    "active_extra",
    "extra_rules",
    "load",
    "load_file",
    "load_text",
    "precompile",
    "trace",
]
