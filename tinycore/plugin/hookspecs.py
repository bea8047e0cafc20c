"""The hooks a plugin may implement, for what a manifest cannot say.

Most plugins need none of them: `tinycore.toml` covers backends, passes, rules, frontends and exports without
running any code. Hooks are for what has to be computed. A plugin names the module that holds them:

```toml
[hooks]
module = "tinycore_backend_foo.hooks"
names = ["tinycore_doctor"]
```

and that module is imported only when one of these hooks is called. pluggy collects the implementations once;
none is called while compiling or launching. Each implementation is called on its own: one that raises is
recorded under its plugin's name, and the others still run.

Authors import `hookimpl` from `tinycore.plugin`; pluggy is an implementation detail of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import pluggy

from tinycore.runtime.environment import BackendSpec, FrontendSpec, PassSpec, RuleSource, Validation

if TYPE_CHECKING:
    import argparse

PROJECT: Final = "tinycore"

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `tinycore doctor`.

    >>> Finding("warning", "driver 535 is old", hint="apt install nvidia-driver-550").level
    'warning'
    """

    level: Literal["ok", "warning", "error"]
    what: str
    where: str = ""
    hint: str = ""


class HookSpecs:
    """The signatures. An implementation may take fewer arguments than its specification."""

    @hookspec
    def tinycore_backends(self) -> Iterable[BackendSpec]:  # type: ignore[empty-body]
        """Backends that cannot be written down in a manifest, such as one for each simulator that is found.

        Called once, when the backends are first listed. Nothing may be opened here.

        ```python
        from tinycore.plugin import BackendSpec, hookimpl

        @hookimpl
        def tinycore_backends():
            for chip in ("A1", "A2"):
                yield BackendSpec(f"SIM_{chip}", priority=0, open=lambda chip=chip: open_simulator(chip))
        ```
        """

    @hookspec
    def tinycore_passes(self) -> Iterable[PassSpec]:  # type: ignore[empty-body]
        """Passes that cannot be written down in a manifest. Called once, before the first compile.

        ```python
        from tinycore.plugin import PassSpec, hookimpl

        @hookimpl
        def tinycore_passes():
            return [PassSpec("count", "late", run=lambda graph, context: graph, after=("tile",))]
        ```
        """

    @hookspec
    def tinycore_rules(self) -> Iterable[RuleSource]:  # type: ignore[empty-body]
        """Rule files that are generated or found at run time. Called once, before the first compile.

        ```python
        from pathlib import Path
        from tinycore.plugin import RuleSource, hookimpl

        @hookimpl
        def tinycore_rules():
            return [RuleSource(path, "late", path.stem) for path in sorted(Path("rules").glob("*.rules"))]
        ```
        """

    @hookspec
    def tinycore_frontends(self) -> Iterable[FrontendSpec]:  # type: ignore[empty-body]
        """Loaders of model files that cannot be written down in a manifest. Called when a file is loaded.

        ```python
        from tinycore.plugin import FrontendSpec, hookimpl

        @hookimpl
        def tinycore_frontends():
            return [FrontendSpec("csv", suffixes=(".csv",), load=lambda path, **options: open(path).read())]
        ```
        """

    @hookspec
    def tinycore_add_commands(self, subparsers: argparse._SubParsersAction[Any]) -> None:
        """Commands of the `tinycore` program. Called when the command that was typed is not a built-in one.

        A command sets the default `run`: a function of the parsed arguments that returns an exit status.

        ```python
        from tinycore.plugin import hookimpl

        @hookimpl
        def tinycore_add_commands(subparsers):
            parser = subparsers.add_parser("greet", help="say hello")
            parser.add_argument("name")
            parser.set_defaults(run=lambda arguments: print("hello", arguments.name) or 0)
        ```
        """

    @hookspec(firstresult=True)
    def tinycore_select_device(self, available: tuple[str, ...]) -> str | None:
        """Choose the default device among those that open, highest priority first; None leaves it to others.

        Called only when the user named no device. The first answer that is not None counts.

        ```python
        from tinycore.plugin import hookimpl

        @hookimpl
        def tinycore_select_device(available):
            return "SIM" if "SIM" in available else None
        ```
        """

    @hookspec(firstresult=True)
    def tinycore_validation(self) -> Validation | None:
        """Answer what checks the compiler (`tinycore.runtime.environment.Validation`).

        Called while `TINYCORE_VALIDATE=1`. The first answer that is not None counts.

        ```python
        from tinycore.plugin import hookimpl

        class Printer:
            def kernel(self, target):
                return lambda seen: print(seen.name, "on", target.name)

            def tensors(self):
                return lambda seen: print(seen.name)

            def launch(self, kernel, device, buffers, bindings, launch):
                launch()

        @hookimpl
        def tinycore_validation():
            return Printer()
        ```
        """

    @hookspec
    def tinycore_doctor(self) -> Iterable[Finding]:  # type: ignore[empty-body]
        """Check what this plugin needs from the machine. Called by `tinycore doctor`.

        ```python
        import shutil
        from tinycore.plugin import Finding, hookimpl

        @hookimpl
        def tinycore_doctor():
            if shutil.which("python3"):
                return [Finding("ok", "python3 is there")]
            return [Finding("warning", "no python3", hint="apt install python3")]
        ```
        """

    @hookspec
    def tinycore_on_event(self, event: Mapping[str, Any]) -> None:
        """Watch what the compiler does. Called only while tracing; `event["kind"]` says what happened.

        An observer cannot change anything, and one that raises is recorded and not called again.

        ```python
        from tinycore.plugin import hookimpl

        @hookimpl
        def tinycore_on_event(event):
            if event["kind"] == "compile":
                print(event["kernel"])
        ```
        """
