"""Losses against hand-written loops, finite differences and golden values."""

import math

import pytest
import torch
from torch import Tensor

from anna.training.losses import (
    combined_loss,
    distilled_batch,
    false_negatives,
    info_nce,
    matryoshka,
    soft_label_cross_entropy,
)


def random_case(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Five queries, nine documents, groups of two or three."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.nn.functional.normalize(torch.randn(5, 7, generator=generator, dtype=dtype), dim=-1)
    docs = torch.nn.functional.normalize(torch.randn(9, 7, generator=generator, dtype=dtype), dim=-1)
    groups = torch.tensor([[0, 1, 2], [3, 4, -1], [1, 0, 8], [5, 6, -1], [7, 2, 3]])
    labels = torch.rand(5, 3, generator=generator, dtype=dtype).masked_fill(groups < 0, 0.0)
    masked = torch.rand(5, 9, generator=generator) < 0.2
    masked.scatter_(1, groups.clamp(min=0), False)
    masked[1, 4] = masked[3, 6] = False
    return queries, docs, groups, labels / labels.sum(1, keepdim=True), masked


def loop_loss(
    queries: Tensor, docs: Tensor, groups: Tensor, labels: Tensor, masked: Tensor, margin: float | None
) -> list[tuple[float, float]]:
    """The two terms by their formulas, one query and one document at a time; temperature 0.2."""
    results = []
    for q in range(len(queries)):
        cosine = [float(sum(a * b for a, b in zip(queries[q], doc, strict=True))) for doc in docs]
        own = [int(d) for d in groups[q] if d >= 0]
        candidates = []
        for d in range(len(docs)):
            looks_positive = margin is not None and d not in own and cosine[d] > cosine[own[0]] + margin
            if not masked[q, d] and not looks_positive:
                candidates.append(d)
        partition = sum(math.exp(cosine[d] / 0.2) for d in candidates)
        contrastive = -math.log(math.exp(cosine[own[0]] / 0.2) / partition)
        group_partition = sum(math.exp(cosine[d] / 0.2) for d in own)
        distilled = -sum(
            float(labels[q, place]) * math.log(math.exp(cosine[d] / 0.2) / group_partition)
            for place, d in enumerate(own)
        )
        results.append((contrastive, distilled))
    return results


@pytest.mark.parametrize("margin", [None, 0.1, 0.0])
@pytest.mark.parametrize("seed", range(4))
def test_combined_loss_equals_the_loop(seed: int, margin: float | None) -> None:
    case = random_case(seed)
    loss, contrastive, distilled = combined_loss(*case, temperature=0.2, kd_weight=0.7, false_negative_margin=margin)
    expected = loop_loss(*case, margin)
    torch.testing.assert_close(contrastive, torch.tensor([c for c, _ in expected], dtype=torch.float64))
    torch.testing.assert_close(distilled, torch.tensor([d for _, d in expected], dtype=torch.float64))
    torch.testing.assert_close(loss, contrastive + 0.7 * distilled)


def test_gradients_equal_finite_differences() -> None:
    queries, docs, groups, labels, masked = random_case(1)

    def total(queries: Tensor, docs: Tensor) -> Tensor:
        return combined_loss(
            queries, docs, groups, labels, masked, temperature=0.2, kd_weight=1.0, false_negative_margin=None
        )[0].sum()

    assert torch.autograd.gradcheck(total, (queries.requires_grad_(), docs.requires_grad_()))


def test_info_nce_golden_value() -> None:
    # softmax of (1, 0) at temperature 0.5 gives the positive e^2 / (e^2 + 1): temperature divides.
    loss = info_nce(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.zeros(1, 2, dtype=torch.bool), 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_info_nce_is_zero_where_only_the_positive_is_left() -> None:
    similarity, masked = torch.tensor([[0.3, 0.9]]), torch.tensor([[False, True]])
    assert info_nce(similarity, torch.tensor([0]), masked, 0.02).item() == 0.0


def test_soft_label_term_is_the_entropy_where_student_and_teacher_agree() -> None:
    similarity = torch.tensor([[0.4, 0.1, -0.2]], dtype=torch.float64)
    labels = torch.softmax(similarity / 0.1, dim=-1)
    absent = torch.zeros(1, 3, dtype=torch.bool)
    entropy = -(labels * labels.log()).sum()
    torch.testing.assert_close(soft_label_cross_entropy(similarity, labels, absent, 0.1).sum(), entropy)
    shifted = soft_label_cross_entropy(similarity + 0.5, labels, absent, 0.1)
    torch.testing.assert_close(shifted.sum(), entropy)


def test_an_absent_place_changes_neither_value_nor_gradient() -> None:
    similarity = torch.tensor([[0.4, 0.1]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    soft_label_cross_entropy(similarity, labels, torch.tensor([[False, False]]), 0.1).sum().backward()
    wide = torch.tensor([[0.4, 0.1, 0.9]], dtype=torch.float64, requires_grad=True)
    padded = torch.tensor([[0.8, 0.2, 0.0]], dtype=torch.float64)
    loss = soft_label_cross_entropy(wide, padded, torch.tensor([[False, False, True]]), 0.1)
    loss.sum().backward()
    assert wide.grad is not None
    assert similarity.grad is not None
    torch.testing.assert_close(wide.grad[:, :2], similarity.grad)
    assert wide.grad[0, 2] == 0


def test_false_negatives_are_those_above_the_positive_by_more_than_the_margin() -> None:
    similarity = torch.tensor([[0.5, 0.61, 0.59, -1.0], [-0.5, -0.3, -0.45, -0.5]])
    got = false_negatives(similarity, torch.tensor([0, 0]), 0.1)
    assert got.tolist() == [[False, True, False, False], [False, True, False, False]]


def test_bfloat16_vectors_stay_near_float32() -> None:
    case = random_case(2, torch.float32)
    exact = combined_loss(*case, temperature=0.05, kd_weight=1.0, false_negative_margin=None)[0]
    rounded = [part.to(torch.bfloat16).float() if part.is_floating_point() else part for part in case]
    near = combined_loss(*rounded, temperature=0.05, kd_weight=1.0, false_negative_margin=None)[0]
    torch.testing.assert_close(near, exact, rtol=0.05, atol=0.15)


def batch_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six texts, of which a rank has the second and the last two, with a teacher's cosines."""
    queries, docs, *_ = random_case(5)
    texts, own = torch.cat([queries[:2], docs[:4]]), [1, 4, 5]
    teacher = torch.nn.functional.normalize(docs[3:9, :4], dim=-1)
    is_self = torch.tensor(own)[:, None] == torch.arange(6)
    return texts[own], texts, teacher[own] @ teacher.T, is_self


def test_a_batch_is_distilled_text_by_text() -> None:
    own, texts, teacher, is_self = batch_case()
    got = distilled_batch(own, texts, teacher, is_self, temperature=0.2, teacher_temperature=0.3)
    for row in range(3):
        others = [column for column in range(6) if not is_self[row, column]]
        assert len(others) == 5
        wanted = [math.exp(float(teacher[row, column]) / 0.3) for column in others]
        student = [math.exp(float(own[row] @ texts[column]) / 0.2) for column in others]
        expected = -sum(w / sum(wanted) * math.log(s / sum(student)) for w, s in zip(wanted, student, strict=True))
        assert got[row].item() == pytest.approx(expected, rel=1e-12)


def test_a_batch_that_the_student_sees_as_the_teacher_does_has_no_gradient() -> None:
    _, texts, _, _ = batch_case()
    leaf = texts.clone().requires_grad_()
    cosines, is_self = texts @ texts.T, torch.eye(6, dtype=torch.bool)
    loss = distilled_batch(leaf, leaf, cosines, is_self, temperature=0.2, teacher_temperature=0.2)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert gradient.abs().max() < 1e-12
    assert torch.autograd.gradcheck(
        lambda x: distilled_batch(x, x, cosines, is_self, temperature=0.2, teacher_temperature=0.5).sum(), (leaf,)
    )


def test_matryoshka_gradients_are_those_of_the_sizes_summed_by_hand() -> None:
    queries, docs, groups, labels, masked = random_case(3)
    weights = {"temperature": 0.2, "kd_weight": 0.7, "false_negative_margin": 0.1}

    def combined(queries: Tensor, docs: Tensor) -> Tensor:
        return combined_loss(queries, docs, groups, labels, masked, **weights).loss

    leaves = [queries.clone().requires_grad_(), docs.clone().requires_grad_()]
    loss = matryoshka(combined, leaves[0], leaves[1], (2, 3))
    got = torch.autograd.grad(loss.sum(), leaves)
    expected_loss, expected = torch.zeros_like(loss), [torch.zeros_like(leaf) for leaf in leaves]
    for size in (2, 3, queries.shape[1]):
        vectors = [queries[:, :size].clone().requires_grad_(), docs[:, :size].clone().requires_grad_()]
        lengths = [(v**2).sum(1, keepdim=True).sqrt() if size < 7 else 1.0 for v in vectors]
        part = combined(*(v / length for v, length in zip(vectors, lengths, strict=True)))
        expected_loss += part.detach() / 3
        for whole, grad in zip(expected, torch.autograd.grad(part.sum(), vectors), strict=True):
            whole[:, :size] += grad / 3
    torch.testing.assert_close(loss, expected_loss)
    for have, want in zip(got, expected, strict=True):
        torch.testing.assert_close(have, want)


def test_matryoshka_without_dimensions_is_the_loss_itself() -> None:
    queries, docs, *_ = random_case(0, torch.float32)
    assert torch.equal(matryoshka(lambda q, d: q @ d.T, queries, docs, ()), queries @ docs.T)
