"""Prefixes in the forms that other runtimes read."""
