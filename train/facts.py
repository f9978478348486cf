"""What a run tells of itself: run.json at its start, and the prefix file with its task pack and
recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack
from edgeprefix.runtime.version import __version__
from edgeprefix.train.checkpoint import Progressed
from edgeprefix.train.config import PrefixConfig, to_json
from edgeprefix.train.parametrisation import PrefixTensors
from edgeprefix.train.setting import Setting


def run_settings(setting: Setting) -> dict[str, Any]:
    """The part of run.json that a resume must find unchanged."""
    base = setting.base
    return {
        "base": base.identity.sha256,
        "precision": base.precision,
        "weights": base.weights,
        "route": base.route,
        "data": setting.data.fingerprint(),
        "task": setting.task,
        "prompt": setting.prompt,
        "labels": list(setting.labels),
        "stop": list(setting.stop),
        "licence": setting.licence,
        "teacher": None if setting.teacher is None else setting.teacher.key,
        "prefix": to_json(setting.prefix),
        "train": to_json(setting.train),
        "plan": dataclasses.asdict(setting.plan),
        "choice": setting.choice,
    }


def run_facts(
    setting: Setting, settings: Mapping[str, Any], baseline: Mapping[str, float]
) -> dict[str, Any]:
    """run.json at the start of a run with these `run_settings`."""
    base = setting.base
    return {
        "edgeprefix": __version__,
        "task": setting.task,
        "settings": dict(settings),
        "base": {
            **base.identity.to_json(),
            "source": base.source,
            "revision": base.revision,
            "parameters": base.parameters,
        },
        "data": dataclasses.asdict(setting.data.report),
        "baseline": dict(baseline),
        "search": setting.search,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "processes": setting.processes.count,
        "threads": torch.get_num_threads(),
        "device": str(base.device),
    }


def packed_prefix(setting: Setting, tensors: PrefixTensors, done: Progressed) -> Prefix:
    """Trained keys [H, P, Dk] and values [H, P, Dv] of each layer as a complete prefix: pack,
    recipe and metrics with it.
    """
    longest = setting.data.report.target_tokens[2]
    metrics = {"validation_loss": done.best_loss or 0.0}
    if setting.plan.metric != "loss":
        metrics[setting.plan.metric] = done.best_metric or 0.0
    recipe = {
        "edgeprefix": __version__,
        "method": _method(setting.prefix),
        "teacher_tokens": 0 if setting.teacher is None else setting.teacher.tokens,
        "step": done.best_step,
        "train_rows": setting.data.report.train_rows,
        "precision": setting.base.precision,
        "plan": dataclasses.asdict(setting.plan),
        "choice": setting.choice,
        "setbacks": done.setbacks,
        "prefix": {
            key: value for key, value in to_json(setting.prefix).items() if key != "init_text"
        },
        "train": to_json(setting.train),
    }
    pack = TaskPack(
        prompt=setting.prompt,
        labels=setting.labels,
        stop=setting.stop,
        generation=GenerationDefaults(
            max_new_tokens=longest + max(8, longest // 2), temperature=0.0
        ),
        recipe=recipe,
        metrics=metrics,
        licence=setting.licence,
    )
    return Prefix(
        name=setting.task, base=setting.base.identity, layers=prefix_layers(tensors), pack=pack
    )


def _method(prefix: PrefixConfig) -> str:
    if prefix.prompt_tuning:
        return "prompt tuning"
    return "prefix tuning, MLP reparametrisation" if prefix.reparam else "prefix tuning"


def prefix_layers(tensors: PrefixTensors) -> tuple[PrefixLayer, ...]:
    """The same numbers as a prefix file holds them, fp32."""
    return tuple(
        PrefixLayer(key.detach().float().cpu().numpy(), value.detach().float().cpu().numpy())
        for key, value in tensors
    )
