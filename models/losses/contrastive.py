"""Momentum contrast with an additive angular margin (Sec. 3.2 of the AamNCE paper).

A query ``q`` is the feature of an object seen from the front, its positive key the feature of the same object from
another angle, its negative keys those of other objects. Similarity is the cosine of the angle theta between features
(Eq. 7). InfoNCE (Eq. 8) compares cosines; AamNCE (Eq. 9) first turns the positive key away by a margin m.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

TEMPERATURE = 0.07  # unpublished: our choice, MoCo's value
MARGIN = 0.5  # Sec. 3.2, after Eq. 9
COSINE_LIMIT = 1 - 1e-7  # the derivative of arccos is infinite at +-1


def with_margin(cosine: Tensor, margin: float) -> Tensor:
    """``cos(theta + m)`` from ``cos theta``, continued so that it falls on the whole of theta in [0, pi].

    Beyond ``theta + m = pi`` the cosine would rise again and reward the worst positives; there ArcFace's extension
    ``cos theta - m sin m`` takes over.

    Args:
        cosine: cosines, any shape; values outside [-1, 1] by rounding are clamped.
        margin: m in radians, within [0, pi].

    Returns:
        the shape of ``cosine``; values within [-1 - m sin m, cos m].

    Raises:
        ValueError: for a margin outside [0, pi].
    """
    if not 0 <= margin <= math.pi:
        raise ValueError(f"the angular margin is {margin}; it must be within [0, pi] radians")
    cosine = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    if margin == 0:
        return cosine
    angle = torch.arccos(cosine) + margin
    return torch.where(angle <= math.pi, torch.cos(angle), cosine - margin * math.sin(margin))


def aam_nce(
    q: Tensor,
    k_pos: Tensor,
    k_neg: Tensor,
    tau: float = TEMPERATURE,
    margin: float = MARGIN,
    mask: Tensor | None = None,
) -> Tensor:
    """AamNCE (Eq. 9): ``-log( e^{cos(theta+ + m)/tau} / (e^{cos(theta+ + m)/tau} + sum_j e^{cos theta-_j/tau}) )``.

    Args:
        q: (N, D) queries of any length; only their directions count.
        k_pos: (N, D) positive keys.
        k_neg: (K, D) negative keys shared by all queries, or (N, K, D).
        tau: temperature, positive.
        margin: m in radians.
        mask: (N, K), True where a key is a negative of the query; all are if not given. A query without a single
            negative has the loss 0.

    Returns:
        scalar mean over the queries.

    Raises:
        ValueError: if the shapes do not fit or ``tau`` is not positive.
    """
    if tau <= 0:
        raise ValueError(f"the temperature is {tau}; it must be positive")
    if q.shape != k_pos.shape or q.shape[-1] != k_neg.shape[-1]:
        shapes = f"{tuple(q.shape)}, {tuple(k_pos.shape)}, {tuple(k_neg.shape)}"
        raise ValueError(f"queries, positive and negative keys do not fit together: {shapes}")
    query, positive_key, negative_keys = (normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
                                          for x in (q, k_pos, k_neg))  # fmt: skip
    positive = with_margin((query * positive_key).sum(-1, keepdim=True), margin) / tau
    if negative_keys.dim() == 2:
        negative = query @ negative_keys.T / tau
    else:
        negative = (negative_keys @ query.unsqueeze(-1)).squeeze(-1) / tau
    if mask is not None:
        negative = negative.masked_fill(~mask, -math.inf)
    return (torch.logsumexp(torch.cat([positive, negative], dim=1), dim=1) - positive.squeeze(1)).mean()


def info_nce(q: Tensor, k_pos: Tensor, k_neg: Tensor, tau: float = TEMPERATURE, mask: Tensor | None = None) -> Tensor:
    """InfoNCE with cosine similarity (Eq. 8): :func:`aam_nce` without a margin."""
    return aam_nce(q, k_pos, k_neg, tau, 0.0, mask)


class MomentumQueue(nn.Module):
    """The newest keys of past objects, first in, first out; all state is in ``state_dict``.

    Args:
        size: number of keys kept.
        dim: length of a key.

    Attributes:
        keys: (size, dim) unit vectors.
        objects: (size,) the number of the object each key shows; -1 where the queue is still empty.
    """

    keys: Tensor
    objects: Tensor
    cursor: Tensor

    def __init__(self, size: int = 4096, dim: int = 128) -> None:  # unpublished: our choice, within MoCo's range
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue of {size} keys can hold none")
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("objects", torch.full((size,), -1, dtype=torch.long))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor, objects: Tensor) -> None:
        """Replace the oldest keys by (N, dim) ``keys`` of the (N,) ``objects``; of more than ``size`` the last stay."""
        size = len(self.keys)
        slots = (self.cursor + torch.arange(len(keys), device=self.keys.device)) % size
        keys, objects, kept = keys[-size:], objects[-size:], slots[-size:]
        self.keys[kept] = normalize(keys.to(self.keys.dtype), dim=-1)
        self.objects[kept] = objects.to(self.objects)
        self.cursor.copy_((self.cursor + len(slots)) % size)

    def negatives(self, keys: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """The negative keys of a batch: all of the queue and, of the batch itself, the other objects.

        Args:
            keys: (N, dim) keys of the batch, no gradient needed.
            objects: (N,) which object each key, and the query in the same row, shows.

        Returns:
            (size + N, dim) keys and the (N, size + N) mask for :func:`aam_nce`, False where a key shows the query's
            own object or a slot is empty.
        """
        others = torch.cat([self.objects, objects.to(self.objects)])
        mask = (others >= 0) & (others != objects.to(self.objects).unsqueeze(1))
        return torch.cat([self.keys, normalize(keys.detach().to(self.keys.dtype), dim=-1)]), mask


@torch.no_grad()
def momentum_update(target: nn.Module, source: nn.Module, decay: float) -> None:
    """``target <- decay * target + (1 - decay) * source`` for parameters; buffers are copied.

    Raises:
        ValueError: for a decay outside [0, 1] or modules of different structure.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"the decay of a moving average is {decay}; it must be within [0, 1]")
    targets, sources = dict(target.named_parameters()), dict(source.named_parameters())
    if targets.keys() != sources.keys():
        raise ValueError(f"the modules differ in {sorted(targets.keys() ^ sources.keys())[:4]}")
    for name, value in targets.items():
        value.lerp_(sources[name].to(value), 1 - decay)
    for kept, new in zip(target.buffers(), source.buffers(), strict=True):
        kept.copy_(new)
