"""The lowest layer: a bundle's graph over a cache, in token ids, slots and lengths; it knows no
text and no request.
"""
