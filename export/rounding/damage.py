"""What rounding a matrix does to the next token, to second order, for any number of formats at the
cost of one backward pass.

A small change Δy of a matrix's output at a token moves the distributions of all tokens after it by
½ E[(g · Δy)²] nats (KL), where g is the gradient of −log p(sampled token): the Fisher information.
Tokens are sampled from the model itself, so that no text's own surprises count. What errors at
several tokens do together is left out: they are as likely to cancel as to add up.

Layers are visited backwards, each run once more from what went into it: only one layer's weights
are held in fp32, and only one layer's intermediate results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprefix.base.streaming import in_full
from edgeprefix.export.rounding.siblings import Siblings, find_siblings
from edgeprefix.export.rounding.walk import Walk

_LOGITS_AT_ONCE = 1 << 24  # numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensitivity:
    """A group of matrices at some tokens: what went in, [T, K], and what its output should have
    been moved by, [T, N].
    """

    group: Siblings
    inputs: Tensor
    gradients: Tensor

    def importance(self) -> Tensor:
        """How much each input carries, [K]: the mean of its square."""
        return self.inputs.square().mean(0)

    def damage(self, change: Tensor) -> float:
        """Mean KL, in nats, of adding `change` [N, K] to the matrices."""
        return self._moving(self.inputs @ change.T)

    def damage_of_inputs(self, weight: Tensor, block: int) -> float:
        """The same of rounding the inputs of `weight` [N, K] to 8 bits, as the kernels do: one
        scale for each block of a token.
        """
        K = self.inputs.shape[1]
        parts = torch.unflatten(functional.pad(self.inputs, (0, -K % block)), 1, (-1, block))
        scale = (parts.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
        rounded = ((parts / scale).round() * scale).flatten(1)[:, :K]
        return self._moving((rounded - self.inputs) @ weight.T)

    def _moving(self, outputs: Tensor) -> float:
        """Mean KL of moving the outputs by these, [T, N]."""
        return float((outputs * self.gradients).sum(-1).square().mean()) / 2


def sensitivities(model: Any, text: Tensor, *, seed: int = 0) -> Iterator[list[Sensitivity]]:
    """For each layer, the last one first, its groups of matrices at the tokens of `text` [B, S]."""
    walk = Walk(model, [text])
    groups, befores = [], []
    for index in range(len(walk.layers)):
        groups.append(find_siblings(model, walk, layer=index))
        befores.append(walk.advance())
    gradient = _of_sampled_tokens(model, walk, text, torch.Generator().manual_seed(seed))
    for index in reversed(range(len(walk.layers))):
        walk.back_to(index, befores.pop())
        found, gradient = _through(walk, groups.pop(), gradient)
        yield found


def _of_sampled_tokens(model: Any, walk: Walk, text: Tensor, generator: torch.Generator) -> Tensor:
    """Gradient [B, S, width] at what the last layer gives out of −log p of tokens sampled at every
    position.
    """
    B, S = text.shape
    head = model.get_output_embeddings()
    states = walk.outputs(0).detach().requires_grad_()
    count = max(1, _LOGITS_AT_ONCE // (B * head.weight.shape[0]))
    with in_full(head), torch.enable_grad():
        for positions in torch.split(torch.arange(S), count):
            logits = walk.logits(0, positions, states).flatten(0, -2).float()
            with torch.no_grad():
                sampled = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            torch.autograd.backward(
                functional.cross_entropy(logits, sampled[:, 0], reduction="sum")
            )
    assert states.grad is not None  # every position has been passed
    return states.grad


def _through(
    walk: Walk, groups: Sequence[Siblings], gradient: Tensor
) -> tuple[list[Sensitivity], Tensor]:
    """A layer's groups, and the gradient at what goes into it."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    with in_full(walk.layer), _noting(groups, inputs, outputs):
        given, output = walk.differentiate(0)
        torch.autograd.backward(output, gradient)
    found = [
        Sensitivity(
            group=group,
            inputs=inputs[group.names[0]].flatten(0, -2),
            gradients=torch.cat([_gradient(outputs[name]) for name in group.names], -1),
        )
        for group in groups
    ]
    assert given.grad is not None
    return found, given.grad


@contextlib.contextmanager
def _noting(
    groups: Sequence[Siblings], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> Iterator[None]:
    """Within the block inputs and outputs of the matrices are noted, these with their gradients."""

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name], outputs[name] = arguments[0].detach(), output
            output.retain_grad()

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for group in groups
        for name, module in zip(group.names, group.modules, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gradient(output: Tensor) -> Tensor:
    grad = output.grad
    return (torch.zeros_like(output) if grad is None else grad).flatten(0, -2)
