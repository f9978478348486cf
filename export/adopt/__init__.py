"""Graphs that users already have: a decoder of Optimum, transformers.js or onnxruntime-genai's
builder becomes a bundle.
"""

from edgeprefix.export.adopt.bundle import adopt

__all__ = ["adopt"]
