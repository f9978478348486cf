"""What all packages agree on: prefix file, manifest, base identity, templates, the way
from text to token ids.
"""
