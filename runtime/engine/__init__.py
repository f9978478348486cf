"""The engine: requests of every kind become work for one scheduler."""

from edgeprefix.runtime.engine.engine import Engine

__all__ = ["Engine"]
