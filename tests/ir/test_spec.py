"""specs/uops.md is what the op table says."""

from __future__ import annotations

import runpy
from pathlib import Path

from tinycore.interpret.elementwise import MEANING
from tinycore.ir import bounds, dtypes, ops, shapes
from tinycore.ir.ops import TABLE

ROOT = Path(__file__).parents[2]
uops_markdown = runpy.run_path(str(ROOT / "docs" / "generate_uops.py"))["uops_markdown"]


def test_the_document_is_up_to_date():
    text = (ROOT / "specs" / "uops.md").read_text()
    assert text == uops_markdown(), "run: python3 dev.py docs"


def test_every_op_is_in_it_once():
    text = uops_markdown()
    assert all(text.count(f"| `{name}` |") == 1 for name in TABLE)


def test_every_row_names_rules_that_exist():
    for op in ops:
        assert op.shape in shapes.RULES, op
        assert op.bounds == "dtype" or op.bounds in bounds.RULES, op
        for operand in op.operands:
            name = operand.lstrip("*").rpartition(":")[2]
            bound = {other.lstrip("*").partition(":")[0] for other in op.operands if ":" in other}
            assert name in dtypes.CLASSES or name in bound or name == "Void", (op, operand)


def test_every_elementwise_op_has_a_meaning():
    assert set(MEANING) == {op for op in ops if op.elementwise}
