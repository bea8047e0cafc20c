"""Every exception that tinycore raises on purpose.

An error says *what* went wrong, *where*, and *what to do next*. All of them derive from
`TinycoreError`, so ``except tinycore.errors.TinycoreError`` catches every mistake that tinycore
knows about and nothing else:

    TinycoreError
    ├── ShapeError            shapes do not fit (also a ValueError)
    ├── DTypeError            dtypes do not fit (also a TypeError)
    ├── DeviceError           tensors on different devices, or out of device memory
    ├── BindingError          a symbolic dimension has no value, or two values
    ├── VerifyError           a graph breaks the rules of its level
    ├── InterpretError        the interpreter was given something that has no meaning
    ├── RuleError             a .rules file
    │   ├── RuleSyntaxError       cannot be parsed
    │   ├── RuleCheckError        does not type-check
    │   └── RuleLoopError         rewriting does not end
    ├── PluginError           a plugin cannot be used
    │   └── BackendUnavailable    a device that was asked for by name cannot be opened
    ├── CompileError          a kernel could not be compiled for its device
    ├── ValidationError       a pass changed the meaning of a kernel (TINYCORE_VALIDATE=1)
    ├── DataError             a file that was loaded is malformed (also a ValueError)
    └── ConfigError           an environment variable or a setting has an impossible value
"""

from __future__ import annotations

from collections.abc import Iterable


class TinycoreError(Exception):
    """Base of all errors raised by tinycore.

    Parameters
    ----------
    what:
        One sentence: what is wrong.
    where:
        The place: a node in context, a file:line:col with a caret, a plugin's name.
    hint:
        The next thing to do, preferably a command or an expression to type.

    >>> print(TinycoreError("unknown device 'CPUX'", hint="did you mean CPU?"))
    unknown device 'CPUX'
      hint: did you mean CPU?
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        parts = [what]
        if where:
            parts.append("\n".join(f"  {line}" for line in where.splitlines()))
        if hint:
            parts.append(f"  hint: {hint}")
        super().__init__("\n".join(parts))


class ShapeError(TinycoreError, ValueError):
    """Shapes do not fit together."""


class DTypeError(TinycoreError, TypeError):
    """Dtypes do not fit together, or an op does not exist for a dtype."""


class BindingError(TinycoreError, ValueError):
    """A symbolic dimension has no value, a value out of its range, or two values at once."""


class DeviceError(TinycoreError, RuntimeError):
    """Tensors of one operation are on different devices, or a device is out of memory."""


class VerifyError(TinycoreError):
    """A graph breaks the rules of its level; the offending node is shown in context."""


class InterpretError(TinycoreError):
    """The interpreter was given a graph that has no meaning."""


class RuleError(TinycoreError):
    """Something is wrong with a .rules file."""


class RuleSyntaxError(RuleError):
    """A .rules file cannot be parsed; `where` holds the line with a caret."""


class RuleCheckError(RuleError):
    """A .rules file parses but names, arities, types or attributes do not fit the op table."""


class RuleLoopError(RuleError):
    """Rewriting does not end; `where` lists the rules of the cycle."""


class PluginError(TinycoreError):
    """A plugin cannot be loaded or used; names the distribution and how to disable it."""


class BackendUnavailable(PluginError):
    """A device that was asked for by name cannot be opened."""


class CompileError(TinycoreError):
    """A kernel could not be rendered or compiled for its device."""


class ValidationError(TinycoreError):
    """A pass, a rule or a backend changed the meaning of a kernel."""


class DataError(TinycoreError, ValueError):
    """A file or buffer from outside is malformed."""


class ConfigError(TinycoreError, ValueError):
    """A setting has an impossible value."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """The hint ``did you mean 'x'?`` for the closest candidate, or None when nothing is close.

    >>> did_you_mean("PERMUT", ["PERMUTE", "EXPAND"])
    "did you mean 'PERMUTE'?"
    """
    import difflib

    candidates = list(candidates)
    close = difflib.get_close_matches(name, candidates, n=1)
    if not close:
        folded = {candidate.lower(): candidate for candidate in candidates}
        close = [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=1)]
    return f"did you mean {close[0]!r}?" if close else None
