"""Gradient caching: a batch as large as wanted in the memory of a small one (Gao et al. 2021).

Embeddings of all chunks are made without a graph; the loss gives each embedding its gradient; then each chunk is
embedded again, with a graph, and that gradient is sent through it. Random numbers are replayed, so dropout draws the
same masks both times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from sentence_transformers.base.losses.gradcache import RandContext

Embed = Callable[[int], tuple[torch.Tensor, ...]]
"""From the number of a chunk to its embeddings, each with the chunk's rows first."""


def cached_backward(
    chunks: int,
    embed: Embed,
    loss: Callable[[Sequence[tuple[torch.Tensor, ...]]], torch.Tensor],
    backward: Callable[[torch.Tensor], None] = lambda loss: loss.backward(),
) -> torch.Tensor:
    """Accumulate the gradient of ``loss([embed(0), embed(1), …])`` in the parameters; the loss, detached."""
    states, leaves = [], []
    for chunk in range(chunks):
        states.append(RandContext())
        with torch.no_grad():
            made = embed(chunk)
        leaves.append(tuple(item.detach().requires_grad_() for item in made))
    value = loss(leaves)
    value.backward()
    for chunk in range(chunks):
        with states[chunk]:
            made = embed(chunk)
        surrogate = torch.zeros((), device=made[0].device)
        for item, leaf in zip(made, leaves[chunk], strict=True):
            if leaf.grad is not None and item.requires_grad:
                surrogate = surrogate + (item * leaf.grad).sum()
        if surrogate.requires_grad:
            backward(surrogate)
    return value.detach()
