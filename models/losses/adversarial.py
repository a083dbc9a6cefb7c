"""The non-saturating game and its gradient penalty, shared by every system."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-D(G(z)))``: what the generator minimises (Goodfellow et al. 2014, non-saturating form).

    Args:
        fake_logits: discriminator logits of generated pictures, any shape; positive means "real".

    Returns:
        scalar; log 2 for an undecided discriminator.
    """
    return softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of ``softplus(-D(x))`` plus mean of ``softplus(D(G(z)))``; 2 log 2 for an undecided discriminator."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def r1_penalty(real_logits: Tensor, *inputs: Tensor) -> Tensor:
    """Mean over the batch of the squared gradient norm of the logits (R1, Mescheder et al. 2018), without the half.

    Mescheder's and StyleGAN's penalty is ``gamma / 2`` times this; GIRAFFE's (Eq. 5 of the AamNCE paper and the public
    code) is ``lambda`` times it. The norm is in the units of the inputs: for pictures in [-1, 1] it is a quarter of
    what the same network on [0, 1] pictures would give.

    Args:
        real_logits: (N,) or (N, 1) logits of real pictures, computed with a graph.
        inputs: tensors of batch size N that require gradients and led to the logits; a discriminator that looks at
            several pictures gives all of them, and their squared norms add.

    Returns:
        scalar, differentiable with respect to the discriminator's weights.

    Raises:
        ValueError: if there is no input, or one does not require a gradient.
    """
    if not inputs or not all(x.requires_grad for x in inputs):
        raise ValueError("the R1 penalty needs the real pictures with requires_grad_() set before the discriminator")
    gradients = torch.autograd.grad(real_logits.sum(), inputs, create_graph=True)
    return torch.stack([g.square().sum() for g in gradients]).sum() / len(real_logits)
