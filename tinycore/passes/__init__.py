"""Rewrite rules of the core, one file pair per concern: ``name.rules`` and the natives in ``name.py``."""
