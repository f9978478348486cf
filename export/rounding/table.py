"""A plan for people: what each group of matrices got, and why."""

from __future__ import annotations

from edgeprefix.export.rounding.plan import Chosen, FittedPlan


def plan_table(plan: FittedPlan) -> str:
    """One line a layer, one cell a group of matrices: bits and block, and what that is expected to
    damage, in thousandths of a nat.
    """
    layers: dict[int, list[Chosen]] = {}
    for chosen in plan.chosen:
        layers.setdefault(chosen.layer, []).append(chosen)
    weights = sum(chosen.weights for chosen in plan.chosen)
    size = sum(chosen.bytes for chosen in plan.chosen)
    lines = [
        f"{len(plan.matrices)} matrices of {weights / 1e6:,.1f} million weights in "
        f"{size / 1e6:,.1f} MB, {8 * size / weights:.2f} bits a weight; perplexity of held-out "
        f"texts × {plan.quality:.3f} (KL {plan.divergence:.4f} nats)",
        "bits/block of each, and its expected share of the KL in thousandths of a nat",
    ]
    for layer, groups in layers.items():
        cells = (
            f"{one.matrices.replace('_proj', '')} {one.bits}/{one.block} {1000 * one.damage:.2f}"
            for one in groups
        )
        lines.append(f"layer {layer:>3}  " + "  ".join(f"{cell:<24}" for cell in cells).rstrip())
    return "\n".join(lines)
