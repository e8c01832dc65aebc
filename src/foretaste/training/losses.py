"""Losses: what a target's score, set against other items' scores, costs.

`softmax` sets the target against the whole catalogue, exactly (see `softmax.py`); the others against sampled negatives
(see `negatives.py`). Each is a function of the target's score [N], the negatives' scores [N, M] and which of them are
real [N, M], and gives the loss of each row [N], to be minimised. A negative that is the target itself is never real:
`loss_of` sees to that, whatever the sampler did. A row without a real negative keeps what its loss says of the target
alone, and costs 0 where it says nothing.

Signs: s is a score, so a loss falls as s+ rises, and as s- falls towards it: far below, what top1 and bpr-max ask of a
negative's own score (that it be near 0) may outweigh the rest. That is worth a word, because two of the five papers
print it the wrong way round: LSAMN's eq. 13 and 15 are log-likelihoods called losses, and ASARS' eq. 21 rewards the
negatives. A test holds every loss to it at one point.

Letters: N targets, M negatives, I items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from foretaste.errors import ConfigError, nearest
from foretaste.models.contract import Query, SequenceModel, query_rows
from foretaste.training.negatives import Negatives
from foretaste.training.softmax import catalogue_cross_entropy, score_cross_entropy, weighted_mean


def sampled_softmax(
    positive: Tensor, negative: Tensor, real: Tensor, log_q: Tensor | None = None, log_q_target: Tensor | None = None
) -> Tensor:
    """-log( e^{t} / (e^{t} + sum_j e^{n_j}) ), where t = s+ - log min(Q(target), 1) and n_j = s_j - log Q(j).

    Q is the expected number of times an item is sampled (the logQ correction): Jean et al., ACL 2015; Yi et al., RecSys
    2019, who correct both sides as TensorFlow does. There items are drawn without putting back, so Q is at most 1. Here
    one may be drawn many times, and the target's hits are left out of the sum: it stands for itself once, however often
    it is expected, or a popular target would weigh less in its own sum than it scores, and be pushed up for ever. With
    `log_q` alone the sum estimates the rest of the partition function and the target stands for itself, which holds
    where many draws hit each likely item. With every other item once, both are the full softmax.
    """
    t = positive if log_q_target is None else positive - log_q_target.clamp(max=0)  # [N]
    n = negative if log_q is None else negative - log_q  # [N, M]
    return -logsigmoid(t - _log_sum(n, real))


def bce(positive: Tensor, negative: Tensor, real: Tensor) -> Tensor:
    """-log sigma(s+) - sum_j log sigma(-s_j): skip-gram with negatives (LSAMN eq. 15, HRM); SASRec with M = 1."""
    return -logsigmoid(positive) - _sum(logsigmoid(-negative), real)


def gbce(positive: Tensor, negative: Tensor, real: Tensor, rate: float, t: float = 0.75) -> Tensor:
    """-beta log sigma(s+) - sum_j log sigma(-s_j), beta = rate (t (1 - 1/rate) + 1/rate), rate = M / (I - 1).

    Petrov & Macdonald, "gSASRec", RecSys 2023, without their division by M + 1. t = 0 is `bce`; t = 1 makes
    sigma(s) an unbiased probability, where sampling makes plain BCE overconfident.
    """
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    return -beta * logsigmoid(positive) - _sum(logsigmoid(-negative), real)


def bpr(positive: Tensor, negative: Tensor, real: Tensor) -> Tensor:
    """mean_j -log sigma(s+ - s_j). Rendle et al., UAI 2009; the mean as in GRU4Rec (ICLR 2016)."""
    return _mean(-logsigmoid(positive[:, None] - negative), real)


def bpr_max(positive: Tensor, negative: Tensor, real: Tensor, regularisation: float = 1.0) -> Tensor:
    """-log sum_j w_j sigma(s+ - s_j) + lambda sum_j w_j s_j^2, where w = softmax over the negatives.

    Hidasi & Karatzoglou, CIKM 2018, with its score regularisation. Gradients flow through w, as in their code.
    """
    log_w = negative - _log_sum(negative, real)[:, None]  # [N, M]
    close = _log_sum(log_w + logsigmoid(positive[:, None] - negative), real)  # [N]
    pull = _sum(_exp(log_w, real) * negative.square(), real)  # [N]
    return torch.where(real.any(1), regularisation * pull - close, 0)


def top1(positive: Tensor, negative: Tensor, real: Tensor) -> Tensor:
    """mean_j sigma(s_j - s+) + sigma(s_j^2). Hidasi et al., ICLR 2016 (ASARS eq. 22)."""
    return _mean(torch.sigmoid(negative - positive[:, None]) + torch.sigmoid(negative.square()), real)


def top1_max(positive: Tensor, negative: Tensor, real: Tensor) -> Tensor:
    """sum_j w_j (sigma(s_j - s+) + sigma(s_j^2)), where w = softmax over the negatives. CIKM 2018."""
    w = _exp(negative - _log_sum(negative, real)[:, None], real)  # [N, M]
    return _sum(w * (torch.sigmoid(negative - positive[:, None]) + torch.sigmoid(negative.square())), real)


def hinge(positive: Tensor, negative: Tensor, real: Tensor, margin: float = 1.0, adaptive: bool = False) -> Tensor:
    """mean_j max(0, margin - s+ + s_j) (ASARS eq. 23); `adaptive` takes the hardest negative alone, as in Spotlight."""
    gap = (margin - positive[:, None] + negative).clamp_min(0)  # [N, M]
    return torch.where(real, gap, 0).amax(1) if adaptive else _mean(gap, real)


def regression(score: Tensor) -> Tensor:
    """-s+ alone: for scores with a bound (a cosine) and items' vectors that stay as they are. Tan et al., DLRS 2016."""
    return -score


PRECISIONS = ("float32", "bfloat16")
"""What the softmax multiplies: see `softmax.py`. A model without an item matrix scores as it does, in float32."""


@dataclass(frozen=True)
class Loss:
    """An entry of the registry."""

    needs: Literal["catalogue", "negatives", "target"]
    """The scores of all items, of sampled ones, or of the target alone."""
    says: str
    """One line for people."""
    rows: Callable[..., Tensor] | None = None
    """The loss of each row; None for the loss over the catalogue."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the caller may set, with its default."""


LOSSES: Mapping[str, Loss] = {
    "softmax": Loss("catalogue", "exact cross-entropy over all items", options={"precision": "float32"}),
    "sampled_softmax": Loss(
        "negatives", "cross-entropy over sampled items, with the logQ correction", sampled_softmax, {"correct": "both"}
    ),
    "bce": Loss("negatives", "binary cross-entropy, summed over the negatives", bce),
    "gbce": Loss("negatives", "binary cross-entropy made unbiased for the share of items sampled", gbce, {"t": 0.75}),
    "bpr": Loss("negatives", "the target above each negative, pairwise logistic", bpr),
    "bpr_max": Loss(
        "negatives", "the target above the hardest negatives, softly chosen", bpr_max, {"regularisation": 1.0}
    ),
    "top1": Loss("negatives", "the target above each negative, and negatives near zero", top1),
    "top1_max": Loss("negatives", "top1 for the hardest negatives, softly chosen", top1_max),
    "hinge": Loss("negatives", "the target above each negative by a margin", hinge, {"margin": 1.0, "adaptive": False}),
    "regression": Loss("target", "the target's score alone, for cosine scores and frozen items", regression),
}
"""Every loss by its name."""


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the loss does not have, and values of another kind than it takes."""
    known = LOSSES[name].options
    for option, value in options.items():
        if option not in known:
            raise ConfigError(f"loss '{name}' has no option '{option}'; {nearest(option, known)}")
        usual = known[option]
        kind, words = (
            ((bool,), "true or false") if isinstance(usual, bool)
            else ((int, float), "a number") if isinstance(usual, float) else ((str,), "a word")
        )  # fmt: skip
        if not isinstance(value, kind) or isinstance(value, bool) != isinstance(usual, bool):
            raise ConfigError(f"loss '{name}': {option} = {value!r}; give {words}, such as {usual}")


def loss_of(
    name: str,
    model: SequenceModel,
    query: Query,
    targets: Tensor,
    negatives: Negatives | None = None,
    *,
    weights: Tensor | None = None,
    rows: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The loss of a batch, a scalar: the mean over targets, weighted by `weights` [N] where given.

    Args:
        name: a key of `LOSSES`.
        model: scores the items. Where it has an item matrix, the full softmax goes through it in blocks; where it has
            none, through `model.score`, also in blocks.
        query: what the model answered at the asked positions, [N, ...].
        targets: [N] int64, columns of the catalogue (item number - 1).
        negatives: what the targets are compared with, for a loss that samples.
        rows: [N] int64, the row of `query` that each target belongs to, where a position has several targets (all
            items of the next session, the next n events); own negatives are then one row a target.
        options: see `LOSSES[name].options`.
    """
    spec = LOSSES.get(name)
    if spec is None:
        raise ConfigError(f"unknown loss '{name}'; {nearest(name, LOSSES)}")
    check_options(name, options)
    if rows is not None:
        query = query_rows(query, rows)
    if spec.rows is None:
        return _full_softmax(model, query, targets, weights, **{**spec.options, **options})
    target = (targets + 1)[:, None]  # [N, 1]
    if spec.needs == "target":
        return weighted_mean(spec.rows(model.score(query, target)[:, 0]), weights)
    if negatives is None:
        raise ConfigError(f"loss '{name}' compares the target with sampled items: set negatives to at least 1")
    if negatives.items.dim() == 1:
        positive, negative = model.score(query, target)[:, 0], model.score(query, negatives.items)  # [N], [N, M]
    else:  # at once: each call gives the whole catalogue a gradient
        both = model.score(query, torch.cat([target, negatives.items], 1))  # [N, 1 + M]
        positive, negative = both[:, 0], both[:, 1:]  # [N], [N, M]
    real = negatives.real & (negatives.items != target)  # [N, M]
    given = {**spec.options, **options}
    if name == "sampled_softmax":
        given = _correction(negatives, given["correct"])
    elif name == "gbce":
        given["rate"] = min(negatives.items.shape[-1] / (model.n_items - 1), 1.0)
    return weighted_mean(spec.rows(positive, negative, real, **given), weights)


def _full_softmax(
    model: SequenceModel, query: Query, targets: Tensor, weights: Tensor | None, precision: str
) -> Tensor:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision = '{precision}'; {nearest(precision, PRECISIONS)}")
    if isinstance(query, Tensor) and type(model).item_matrix is not SequenceModel.item_matrix:
        matrix, bias = model.item_matrix(), model.item_bias()
        return catalogue_cross_entropy(query, matrix, targets, bias, weights, precision=precision)
    return score_cross_entropy(model.score, query, model.n_items, targets, weights)


def _correction(negatives: Negatives, correct: str) -> dict[str, Tensor]:
    if correct == "none":
        return {}
    if correct not in ("both", "negatives"):
        raise ConfigError(f"correct = '{correct}'; {nearest(correct, ['both', 'negatives', 'none'])}")
    side = {"log_q": negatives.log_q}
    return side if correct == "negatives" else {**side, "log_q_target": negatives.log_q_target}


def _log_sum(values: Tensor, real: Tensor) -> Tensor:
    """[N]: log of the sum of exponentials where real; the smallest finite number where nothing is."""
    floor = torch.finfo(values.dtype).min
    return torch.where(real, values, floor).logsumexp(1)


def _exp(values: Tensor, real: Tensor) -> Tensor:
    """[N, M]: exponentials where real, else 0; what is masked reaches neither the value nor the gradient."""
    return torch.where(real, values, -math.inf).exp()


def _sum(values: Tensor, real: Tensor) -> Tensor:
    return torch.where(real, values, 0).sum(1)  # [N]


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return _sum(values, real) / real.sum(1).clamp_min(1)  # [N]
