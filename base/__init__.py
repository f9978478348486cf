"""The frozen model as a checkpoint gives it: where it is, who it is, how it is loaded and rounded.

`train` and `export` stand on this package, so that both mean the same base by the same name.
"""

from edgeprefix.base.checkpoint import Checkpoint, find_checkpoint
from edgeprefix.base.config import read_config
from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.base.loader import Base, load_base

__all__ = [
    "Base",
    "Checkpoint",
    "checkpoint_identity",
    "find_checkpoint",
    "load_base",
    "read_config",
]
