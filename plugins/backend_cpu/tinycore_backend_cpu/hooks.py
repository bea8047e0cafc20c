"""What `tinycore doctor` says about this machine."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from tinycore.plugin import Finding, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def tinycore_doctor() -> Iterator[Finding]:
    """The compiler, the threads and vectors that kernels get, and the disk cache."""
    from importlib.metadata import PackageNotFoundError, version

    from tinycore.runtime.cache import open_cache
    from tinycore_backend_cpu.host import host_target
    from tinycore_backend_cpu.objects import has_own_loader

    try:
        yield Finding("ok", f"llvmlite {version('llvmlite')} compiles kernels")
    except PackageNotFoundError:
        hint = "python -m pip install llvmlite"
        yield Finding("error", "llvmlite is missing: nothing new can be compiled", hint=hint)
    able = host_target().capabilities
    yield Finding(
        "ok",
        f"{able.threads} threads, vectors of {able.vector_bytes} bytes, "
        f"objects loaded by {'the own loader' if has_own_loader() else 'LLVM'}",
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = open_cache("backend-cpu")
    for warning in caught:
        yield Finding("warning", str(warning.message), hint="kernels are compiled again in every process")
    if cache is not None and cache.usable:
        found = cache.stats()
        yield Finding(
            "ok", f"kernels are kept in {cache.root} ({cache.limit >> 20} MB at most)", str(found.directory)
        )
