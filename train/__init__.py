"""Learn a prefix for a task over a frozen base: `train_prefix(base, data, task=…, out=…)`."""

from edgeprefix.train.base import Base, load_base
from edgeprefix.train.config import PrefixConfig, TrainConfig
from edgeprefix.train.data import DataReport
from edgeprefix.train.defaults import Plan
from edgeprefix.train.loop import Progress
from edgeprefix.train.trainer import TrainResult, train_prefix

__all__ = [
    "Base",
    "DataReport",
    "Plan",
    "PrefixConfig",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "load_base",
    "train_prefix",
]
