"""Tools for authors of rewrite rules: `tinycore rules check|verify|termination|test`.

Nothing here is imported by the compiler. z3 is needed by `verify` and `termination` only, and imported there.
"""
