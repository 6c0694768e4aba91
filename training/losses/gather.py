"""Rows of all devices, with gradient: every rank's loss sees every rank's negatives (DPR, appendix; as VDR does)."""

from __future__ import annotations

import torch
import torch.distributed as dist


def gather(rows_BX: torch.Tensor) -> torch.Tensor:
    """All ranks' rows, in the order of the ranks; the same tensor where there is one process.

    Every rank has as many rows. The gradient of each rank's loss flows back to the rank that made a row, summed over
    ranks; with the usual averaging of parameters' gradients that is the gradient of the mean of the ranks' losses.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows_BX
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows_BX.contiguous()))
