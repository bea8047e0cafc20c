"""TINYCORE_VALIDATE=1: every pass and every kernel is compared with the interpreter.

Each pass is checked by running the graph before and after it, each kernel by comparing what its first launch
wrote. An error names the pass, and the rule where one is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinycore.ir import Target, UOp
from tinycore.rules.doors import Observer
from tinycore.runtime.buffer import Buffer
from tinycore.runtime.storage import Bindings


class Checks:
    """See `tinycore.runtime.environment.Validation`; numpy is imported when something is checked."""

    def kernel(self, target: Target) -> Observer:
        """What checks the passes of one kernel."""
        from tinycore_tools_validate.passes import Validator

        return Validator(target)

    def tensors(self) -> Observer:
        """What checks the passes over a tensor graph."""
        from tinycore_tools_validate.passes import check_tensors

        return check_tensors

    def launch(
        self,
        kernel: UOp,
        device: str,
        buffers: Sequence[Buffer],
        bindings: Bindings,
        launch: Callable[[], None],
    ) -> None:
        """Launch, and compare what it wrote with the interpreter. Raises ValidationError."""
        from tinycore_tools_validate.launches import checked_launch

        checked_launch(kernel, device, buffers, bindings, launch)
