"""Learn a prefix for a task over a frozen base: `train_prefix(base, data, task=…, out=…)`."""

import warnings

from edgeprefix.train.choice import Choice
from edgeprefix.train.config import PrefixConfig, TrainConfig
from edgeprefix.train.data import DataReport
from edgeprefix.train.defaults import Plan
from edgeprefix.train.loading import load_base
from edgeprefix.train.loop import Progress
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.trainer import TrainResult, train_prefix

__all__ = [
    "Choice",
    "DataReport",
    "FrozenModel",
    "Plan",
    "PrefixConfig",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "load_base",
    "train_prefix",
]


def __getattr__(name: str) -> object:
    if name == "Base":  # until 0.3; edgeprefix.base has the class of that name
        warnings.warn(
            "edgeprefix.train.Base is now edgeprefix.train.FrozenModel",
            DeprecationWarning,
            stacklevel=2,
        )
        return FrozenModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
