"""What llama.cpp's converter writes for Llama 3's scaling of positions. Read by an environment of
llama.cpp's as well: numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def llama3_factors(rope: dict[str, Any], size: int) -> np.ndarray:
    """What each frequency is divided by, as convert_hf_to_gguf.py computes it."""
    original = rope["original_max_position_embeddings"]
    low, high = original / rope["low_freq_factor"], original / rope["high_freq_factor"]
    factors = []
    for frequency in 1.0 / rope["rope_theta"] ** (np.arange(0, size, 2) / size):
        length = 2 * np.pi / frequency
        if length < high:
            factors.append(1.0)
        elif length > low:
            factors.append(rope["factor"])
        else:
            smooth = (original / length - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)
