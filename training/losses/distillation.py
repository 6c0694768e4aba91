"""Learning from a teacher's scores: KL divergence (Hinton et al. 2015; Lin et al. 2020) and margin-MSE.

Margin-MSE is Hofstätter et al. 2020, eq. 1.
"""

from __future__ import annotations

import torch
from torch.nn.functional import log_softmax, mse_loss


def kl_divergence(
    student_QN: torch.Tensor,
    teacher_QN: torch.Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> torch.Tensor:
    """``KL(softmax(teacher / Tt) || softmax(student / Ts)) · Ts²``, mean over queries: scalar.

    A teacher's score of -inf leaves a candidate out on both sides.
    """
    known_QN = teacher_QN > -torch.inf
    log_student = log_softmax((student_QN / student_temperature).masked_fill(~known_QN, -torch.inf), dim=1)
    log_teacher = log_softmax(teacher_QN / teacher_temperature, dim=1)
    parts = log_teacher.exp() * (log_teacher - log_student).masked_fill(~known_QN, 0.0).nan_to_num()
    return parts.sum(dim=1).mean() * student_temperature**2


def margin_mse(student_QN: torch.Tensor, teacher_QN: torch.Tensor) -> torch.Tensor:
    """Mean over queries and negatives of ``((s₀ - sₙ) - (t₀ - tₙ))²``; column 0 is the positive. Scalar."""
    return mse_loss(student_QN[:, :1] - student_QN[:, 1:], teacher_QN[:, :1] - teacher_QN[:, 1:])
