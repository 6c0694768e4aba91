"""Losses against the arithmetic written out, against sentence-transformers where it has the same, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from sentence_transformers.sparse_encoder.losses import SparseDistillKLDivLoss
from torch.autograd import gradcheck

from hyblink.training.losses.cached import cached_backward
from hyblink.training.losses.contrastive_mask import contrastive_mask
from hyblink.training.losses.distillation import kl_divergence, margin_mse
from hyblink.training.losses.flops import flops
from hyblink.training.losses.in_batch_nll import in_batch_nll
from hyblink.training.losses.semi_parametric import VocabularyBatch, svdr_loss, vdr_loss


def logsumexp(values: list[float]) -> float:
    return math.log(sum(math.exp(v) for v in values))


def test_in_batch_nll_is_the_mean_of_minus_log_softmax_at_the_gold_columns() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 3.0, -1.0]])
    first = logsumexp([2 / 0.5, 1 / 0.5, 0]) - 2 / 0.5
    second = logsumexp([0.5 / 0.5, 3 / 0.5, -1 / 0.5]) - 3 / 0.5
    found = in_batch_nll(scores, torch.tensor([0, 1]), temperature=0.5)
    assert found.item() == pytest.approx((first + second) / 2)


def test_other_positives_of_a_query_are_no_negatives() -> None:
    scores = torch.tensor([[2.0, 9.0, 0.0]])
    others = torch.tensor([[False, True, False]])
    found = in_batch_nll(scores, torch.tensor([0]), other_positives_QP=others)
    assert found.item() == pytest.approx(logsumexp([2, 0]) - 2)


def test_the_symmetric_loss_adds_the_passages_view_and_rescaling_makes_both_as_large() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.3], [0.5, 3.0, 0.1]], dtype=torch.float64)
    gold = torch.tensor([0, 1])
    forward = in_batch_nll(scores, gold)
    backward = (logsumexp([2, 0.5]) - 2 + logsumexp([1, 3]) - 3) / 2
    assert in_batch_nll(scores, gold, symmetric=True).item() == pytest.approx(forward.item() + backward)
    assert in_batch_nll(scores, gold, symmetric=True, rescale=True).item() == pytest.approx(2 * forward.item())


def plain_kl(student: list[float], teacher: list[float], ts: float, tt: float) -> float:
    t = [math.exp(x / tt) for x in teacher]
    s = [math.exp(x / ts) for x in student]
    t, s = [x / sum(t) for x in t], [x / sum(s) for x in s]
    return sum(a * math.log(a / b) for a, b in zip(t, s, strict=True)) * ts**2


def test_kl_divergence_is_the_written_out_sum_and_leaves_out_what_the_teacher_does_not_know() -> None:
    student, teacher = [1.0, -2.0, 0.5], [3.0, 1.0, 2.0]
    found = kl_divergence(
        torch.tensor([student]), torch.tensor([teacher]), student_temperature=2, teacher_temperature=3
    )
    assert found.item() == pytest.approx(plain_kl(student, teacher, 2, 3), rel=1e-5)
    masked = torch.tensor([[3.0, 1.0, -math.inf]])
    wide = torch.tensor([[1.0, -2.0, 50.0]], requires_grad=True)
    value = kl_divergence(wide, masked)
    assert value.item() == pytest.approx(plain_kl([1.0, -2.0], [3.0, 1.0], 1, 1), rel=1e-5)
    value.backward()
    assert torch.isfinite(wide.grad).all()
    assert wide.grad[0, 2] == 0


def test_kl_divergence_agrees_with_sentence_transformers() -> None:
    torch.manual_seed(0)
    q, candidates, teacher = torch.rand(5, 30), [torch.rand(5, 30) for _ in range(4)], torch.randn(5, 4)
    theirs = SparseDistillKLDivLoss(None, temperature=2.0).compute_loss_from_embeddings([q, *candidates], teacher)
    student = torch.stack([(q * one).sum(1) for one in candidates], dim=1)
    ours = kl_divergence(student, teacher, student_temperature=2.0, teacher_temperature=2.0)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_margin_mse_compares_margins_to_the_positive() -> None:
    found = margin_mse(torch.tensor([[5.0, 3.0, 1.0]]), torch.tensor([[2.0, 1.0, 1.5]]))
    assert found.item() == pytest.approx((((5 - 3) - (2 - 1)) ** 2 + ((5 - 1) - (2 - 1.5)) ** 2) / 2)


def test_flops_squares_the_mean_activation_of_every_token() -> None:
    assert flops(torch.tensor([[1.0, 0.0], [3.0, 4.0]])).item() == pytest.approx(2.0**2 + 2.0**2)


def test_vdr_losses_take_two_and_four_products() -> None:
    torch.manual_seed(1)
    q, p = (VocabularyBatch(*(torch.rand(3, 7) for _ in range(3))) for _ in range(2))
    seen: list[torch.Tensor] = []

    def nll(scores: torch.Tensor) -> torch.Tensor:
        seen.append(scores)
        return scores.sum()

    products = [q.sparse_NV @ p.weights_NV.T, q.bag_NV @ p.weights_NV.T]
    assert vdr_loss(q, p, nll).item() == pytest.approx(sum(x.sum().item() for x in products) / 2)
    four = [*products, q.weights_NV @ p.sparse_NV.T, q.weights_NV @ p.bag_NV.T]
    assert svdr_loss(q, p, nll).item() == pytest.approx(sum(x.sum().item() for x in four) / 4, rel=1e-6)
    assert len(seen) == 6


def test_the_contrastive_mask_deals_unused_vocabulary_to_the_rows() -> None:
    bag = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    embedding = torch.full((2, 5), 2.0)
    bags, masked = contrastive_mask(bag, torch.zeros(2, 5), embedding, 0.5)
    # Entries 2, 3, 4 are in no bag: 2 and 4 go to row 0, 3 to row 1.
    assert bags.tolist() == [[1.0, 0, 0.5, 0, 0.5], [0, 1.0, 0, 0.5, 0]]
    assert masked.tolist() == [[2.0, 2.0, 2.0, 0, 2.0], [2.0, 2.0, 0, 2.0, 0]]
    # A row's share raises its own pair and no other.
    scores = bags @ masked.T
    plain = bag @ embedding.T
    assert (scores - plain).tolist() == [[2.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "loss",
    [
        lambda s: in_batch_nll(s, torch.tensor([0, 2]), temperature=0.3),
        lambda s: in_batch_nll(s, torch.tensor([0, 2]), symmetric=True),
        lambda s: kl_divergence(s, torch.tensor([[1.0, 2, 0], [0, 1, 3]], dtype=torch.float64), student_temperature=2),
        lambda s: margin_mse(s, torch.tensor([[1.0, 2, 0], [0, 1, 3]], dtype=torch.float64)),
        flops,
    ],
)
def test_gradients_are_those_of_finite_differences(loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(2)
    assert gradcheck(loss, (torch.randn(2, 3, dtype=torch.float64, requires_grad=True),))


def test_gradient_caching_gives_the_gradients_of_the_whole_batch_with_dropout_replayed() -> None:
    def model() -> torch.nn.Module:
        torch.manual_seed(3)
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 4)).double()

    inputs = torch.randn(8, 6, dtype=torch.float64)
    chunks = inputs.split(2)

    def loss(parts: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        whole = torch.cat([part[0] for part in parts])
        return in_batch_nll(whole @ whole.T, torch.arange(8), temperature=0.7)

    plain = model()
    torch.manual_seed(4)
    expected = loss([(plain(chunk),) for chunk in chunks])
    expected.backward()
    cached = model()
    torch.manual_seed(4)
    found = cached_backward(4, lambda at: (cached(chunks[at]),), loss)
    assert found.item() == pytest.approx(expected.item())
    for ours, theirs in zip(cached.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-9)
