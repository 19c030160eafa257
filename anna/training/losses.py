"""The training loss: pure functions of vectors, labels and masks.

Legend: Q queries on a rank, N documents they are compared with (all ranks), G group size, D dimensions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(similarity_QN: Tensor, positive_Q: Tensor, is_masked_QN: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE per query: -log softmax(similarity / temperature) at the positive, over the unmasked documents.

    Args:
        similarity_QN: Cosine of each query and each document, in [-1, 1], (Q, N).
        positive_Q: Column of each query's positive, (Q,).
        is_masked_QN: Documents that a query is not compared with, (Q, N); never its positive.
        temperature: Divides the similarities. > 0.

    Returns:
        (Q,), each >= 0; zero where the positive is the only unmasked document.

    Reference: van den Oord et al. 2018, arXiv:1807.03748, equation 4.
    """
    logits_QN = (similarity_QN / temperature).masked_fill(is_masked_QN, float("-inf"))
    return functional.cross_entropy(logits_QN, positive_Q, reduction="none")


def soft_label_cross_entropy(
    similarity_QG: Tensor, soft_labels_QG: Tensor, is_absent_QG: Tensor, temperature: float
) -> Tensor:
    """Return CE(soft_labels, softmax(similarity / temperature)) per query, over its group.

    Its gradient is that of KL(soft_labels || student); the two differ by the labels' entropy, a constant.

    Args:
        similarity_QG: Cosine of each query and its group's documents, positive first, (Q, G).
        soft_labels_QG: Teacher probabilities; each row sums to 1, or is 0: no labels; 0 where absent, (Q, G).
        is_absent_QG: Places of groups that are smaller than G, (Q, G).
        temperature: Divides the similarities. > 0. The teacher's own temperature is already in the labels.

    Returns:
        (Q,), each at least the entropy of its labels, with equality exactly where student and teacher agree;
        0 where there are no labels.

    Reference: Hinton et al. 2015, arXiv:1503.02531; as a second term beside InfoNCE: BGE-EN-ICL, arXiv:2409.15700.
    """
    logits_QG = (similarity_QG / temperature).masked_fill(is_absent_QG, float("-inf"))
    log_student_QG = functional.log_softmax(logits_QG, dim=-1).masked_fill(is_absent_QG, 0.0)
    return -(soft_labels_QG * log_student_QG).sum(dim=-1)


def false_negatives(similarity_QN: Tensor, positive_Q: Tensor, margin: float) -> Tensor:
    """Return which documents look more relevant than the positive by `margin`, and so are likely unlabelled positives.

    Args:
        similarity_QN: Cosine of each query and each document, (Q, N); used without gradient.
        positive_Q: Column of each query's positive, (Q,).
        margin: A document is masked when its cosine exceeds the positive's by more than this.

    Returns:
        (Q, N), boolean; False at the positives.

    Reference: Qwen3-Embedding, arXiv:2506.05176, equation 2 (margin 0.1).
    """
    similarity_QN = similarity_QN.detach()
    threshold_Q1 = similarity_QN.gather(1, positive_Q[:, None]) + margin
    return similarity_QN > threshold_Q1


def distilled_batch(
    own_emb_MD: Tensor,
    emb_ND: Tensor,
    teacher_MN: Tensor,
    is_self_MN: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Return CE(teacher, student) of how likely each text's nearest one is any other text of the batch, (M,).

    Each text, query or document, is compared with all others. So where each query comes with two documents, there are
    three distributions to learn per query, and they relate documents to each other, too.

    Args:
        own_emb_MD: Unit vectors of this rank's texts, (M, D).
        emb_ND: Unit vectors of all texts of the batch, (N, D).
        teacher_MN: The dense teacher's cosines, (M, N).
        is_self_MN: Where a text meets itself or a twin, which is left out; not all of a row.
        temperature: Divides the student's cosines. > 0.
        teacher_temperature: Divides the teacher's. > 0.

    Reference: relations as what is distilled, Park et al. 2019, arXiv:1904.05068; as softmax over the batch, ours.
    """
    soft_MN = (teacher_MN / teacher_temperature).masked_fill(is_self_MN, float("-inf")).softmax(dim=-1)
    return soft_label_cross_entropy(own_emb_MD @ emb_ND.T, soft_MN, is_self_MN, temperature)


class Terms(NamedTuple):
    """The loss of each query and what it is made of, each (Q,)."""

    loss: Tensor
    info_nce: Tensor
    soft_label_ce: Tensor


def combined_loss(
    query_emb_QD: Tensor,
    doc_emb_ND: Tensor,
    group_QG: Tensor,
    soft_labels_QG: Tensor,
    is_masked_QN: Tensor,
    *,
    temperature: float,
    kd_weight: float,
    false_negative_margin: float | None,
) -> Terms:
    """Return InfoNCE + kd_weight * CE over the group, and the terms.

    Args:
        query_emb_QD: Unit vectors of the queries, (Q, D).
        doc_emb_ND: Unit vectors of all documents of the batch, (N, D).
        group_QG: Columns of each query's group in the documents, positive first, -1 where a group is smaller, (Q, G).
        soft_labels_QG: Teacher probabilities over the groups, 0 where absent, (Q, G).
        is_masked_QN: Documents known not to be negatives of a query, (Q, N).
        temperature: Divides the cosines, in both terms.
        kd_weight: Weight of the second term; 0 leaves it out.
        false_negative_margin: See `false_negatives`; None masks by label only. Own hard negatives stay: the teachers
            have judged them.
    """
    similarity_QN = query_emb_QD @ doc_emb_ND.T
    positive_Q = group_QG[:, 0]
    is_absent_QG = group_QG < 0
    if false_negative_margin is not None:
        is_own_QN = torch.zeros_like(is_masked_QN)
        is_own_QN.scatter_(1, group_QG.where(~is_absent_QG, positive_Q[:, None]), True)
        is_masked_QN = is_masked_QN | (false_negatives(similarity_QN, positive_Q, false_negative_margin) & ~is_own_QN)
    contrastive_Q = info_nce(similarity_QN, positive_Q, is_masked_QN, temperature)
    similarity_QG = similarity_QN.gather(1, group_QG.clamp(min=0))
    distilled_Q = soft_label_cross_entropy(similarity_QG, soft_labels_QG, is_absent_QG, temperature)
    return Terms(contrastive_Q + kd_weight * distilled_Q, contrastive_Q, distilled_Q)


def matryoshka(
    loss: Callable[[Tensor, Tensor], Tensor], left_MD: Tensor, right_ND: Tensor, dims: Sequence[int]
) -> Tensor:
    """Return the mean of `loss` over the whole vectors and over their first `dims` dimensions.

    Args:
        loss: Of two sets of vectors that are compared with each other.
        left_MD: Unit vectors, (M, D).
        right_ND: Unit vectors, (N, D).
        dims: Numbers of dimensions, each below D; the vectors that are left of them are made unit vectors again.

    Reference: Kusupati et al. 2022, arXiv:2205.13147, equation 1, all sizes weighing the same.
    """
    cut = [(functional.normalize(left_MD[:, :d]), functional.normalize(right_ND[:, :d])) for d in dims]
    return torch.stack([loss(*pair) for pair in ((left_MD, right_ND), *cut)]).mean(dim=0)
