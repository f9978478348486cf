"""Who races: each peer's environment, worker, and the cells it cannot do, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

PRECISIONS = ("fp32", "int8", "int4")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One engine in the race."""

    title: str
    note: str
    """How its model was made and is run, in a line."""
    cannot: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(model, precision) → reason; "*" stands for every model."""

    def reason_against(self, model: str, precision: str) -> str | None:
        """Why this peer has no such model; None when it has."""
        return self.cannot.get((model, precision)) or self.cannot.get(("*", precision))


TORCH_QUANTISED = (
    "PEFT's base is run as it was trained; torch's int8 and int4 are packages of their own"
)

CONTENDERS: Mapping[str, Contender] = MappingProxyType(
    {
        "ours": Contender(title="edgeprefix", note="`edgeprefix export decoder`, run by `Engine`"),
        "llama": Contender(
            title="llama.cpp",
            note="F32, Q8_0, Q4_0; built with native instructions; f16 cache (its default)",
        ),
        "genai": Contender(
            title="onnxruntime-genai",
            note=(
                "its model builder with prune_lm_head=true; GPT-2: Optimum's graph with a "
                "configuration by hand"
            ),
            cannot={
                ("gpt2-124m", "int4"): (
                    "its builder has no GPT-2, and Optimum, whose graph is run instead, makes no "
                    "int4"
                )
            },
        ),
        "openvino": Contender(
            title="OpenVINO GenAI",
            note=(
                "optimum-intel; fp32: arithmetic and cache held to f32; int8 and int4: its defaults"
            ),
        ),
        "ctranslate2": Contender(
            title="CTranslate2",
            note="ct2-transformers-converter",
            cannot={("*", "int4"): "CTranslate2 has no 4-bit weights on CPU"},
        ),
        "optimum": Contender(
            title="Optimum ORTModel",
            note="`optimum-cli export onnx`, int8 by ORTQuantizer (dynamic, AVX-512 VNNI)",
            cannot={("*", "int4"): "Optimum's ORTQuantizer makes no int4"},
        ),
        "peft": Contender(
            title="transformers + PEFT",
            note="the checkpoint in torch with a prefix of 10 positions",
            cannot={("*", "int8"): TORCH_QUANTISED, ("*", "int4"): TORCH_QUANTISED},
        ),
    }
)
