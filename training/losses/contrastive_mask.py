"""VDR's contrastive mask (Zhou et al. 2024, section 3.3): vocabulary that no text of a batch uses tells rows apart.

Entries absent from all bags of the batch are dealt round-robin to the rows. Each row's bag gets its share with weight
w; in the embeddings that the bags are multiplied with, a row keeps its own share only, so that the share of another row
cannot raise a wrong pair.
"""

from __future__ import annotations

import torch


def contrastive_mask(
    bag_BV: torch.Tensor, other_bag_BV: torch.Tensor, embedding_BV: torch.Tensor, weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(bags with their shares, embeddings without other rows' shares), both (B, V), rows paired."""
    rows = len(bag_BV)
    absent_V = (bag_BV.sum(0) == 0) & (other_bag_BV.sum(0) == 0)
    dealt_BV = torch.arange(bag_BV.shape[1], device=bag_BV.device)[None, :] % rows
    mine_BV = absent_V[None, :] & (dealt_BV == torch.arange(rows, device=bag_BV.device)[:, None])
    return bag_BV + weight * mine_BV, embedding_BV * ~(absent_V[None, :] & ~mine_BV)
