"""How features of several frames become one: InvertAvatar's recurrent unit (section 3.4) and its baselines.

All take (N, T, C, H, W) features of T frames and what is remembered of earlier ones, and return (N, C, H, W) features
and the new memory. Feeding frames together or one after the other gives the same result, except for the two baselines
that look at a window of frames (``conv``, ``attention``), which average over windows (appendix B.1). Untrained, each is
an average over frames, so that decoders trained on single frames go on from what they know and the four are compared by
what they learn (unpublished: our choice).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["gru", "mean", "conv", "attention"]
Update = Literal["release", "paper", "mean"]
Memory = tuple[Tensor, ...]


class ConvGRU(nn.Module):
    """A convolutional gated recurrent unit (Ballas et al. 2016), 3x3.

    Args:
        channels: of the features and the state.
        update: which part the gate z plays: ``release`` h = (1 - z) h + z c (public code), ``paper`` h = z h +
            (1 - z) c (equation 1). Weights of one are no weights of the other. ``mean`` (unpublished: our choice) is
            ``release`` whose gate knows how many frames came before.

    It begins as a running average of tanh(x). Of the papers' two, that average forgets, each frame counting as much as
    all before it; ``mean`` begins as the mean over all frames, which is what more frames are to improve on.
    """

    def __init__(self, channels: int, update: Update = "release"):
        super().__init__()
        self.update = update
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        nn.init.dirac_(self.candidate.weight)
        for start in (self.gates.weight, self.gates.bias, self.candidate.bias):
            nn.init.zeros_(start)  # type: ignore[arg-type]

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """See the module's text; the state starts at zero."""
        h, count = (torch.zeros_like(x[:, 0]), x.new_zeros(())) if memory is None else memory
        for frame in x.unbind(1):
            reset, z = self.gates(torch.cat([frame, h], dim=1)).chunk(2, dim=1)
            if self.update == "mean":
                z = z - count.log()  # sigmoid(-log n) = 1 / (n + 1); of the first frame, all
            c = self.candidate(torch.cat([frame, reset.sigmoid() * h], dim=1)).tanh()
            h = torch.lerp(c, h, z.sigmoid()) if self.update == "paper" else torch.lerp(h, c, z.sigmoid())
            count = count + 1
        return h, (h, count)


class _Average(nn.Module):
    """The running mean of summaries of windows; the memory is (sum, number)."""

    window = 1

    def summarise(self, x: Tensor) -> Tensor:
        """(N, window, C, H, W) to (N, C, H, W)."""
        return x[:, 0]

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """See the module's text. A last window that is not full is filled up with its last frame."""
        total, count = (torch.zeros_like(x[:, 0]), x.new_zeros(())) if memory is None else memory
        for piece in x.split(self.window, dim=1):
            missing = self.window - piece.shape[1]
            if missing:
                piece = torch.cat([piece, piece[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
            total, count = total + self.summarise(piece), count + 1
        return total / count, (total, count)


class MeanFusion(_Average):
    """The plain mean over frames."""


class ConvFusion(_Average):
    """A convolution over a window of frames side by side in channels."""

    def __init__(self, channels: int, window: int = 3):
        super().__init__()
        self.window = window
        compress = nn.Conv2d(window * channels, channels, 3, padding=1)
        refine = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Sequential(compress, nn.PReLU(channels, init=1.0), refine)
        with torch.no_grad():
            one = nn.init.dirac_(torch.empty_like(refine.weight))
            compress.weight.copy_(one.repeat(1, window, 1, 1) / window)
            refine.weight.copy_(one)
        for layer in (compress, refine):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def summarise(self, x: Tensor) -> Tensor:
        return self.mix(x.flatten(1, 2))


class AttentionFusion(_Average):
    """A transformer block over the frames of a window, at each pixel by itself (AttFusion, appendix B.1)."""

    def __init__(self, channels: int, window: int = 3, heads: int = 4):
        super().__init__()
        self.window = window
        heads = next(h for h in range(heads, 0, -1) if channels % h == 0)
        self.block = nn.TransformerEncoderLayer(
            channels, heads, 2 * channels, dropout=0.0, batch_first=True, norm_first=True
        )
        for layer in (self.block.self_attn.out_proj, self.block.linear2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def summarise(self, x: Tensor) -> Tensor:
        n, t, c, h, w = x.shape
        tokens = x.permute(0, 3, 4, 1, 2).reshape(n * h * w, t, c)
        return self.block(tokens).mean(dim=1).view(n, h, w, c).permute(0, 3, 1, 2)


def make_fusion(kind: Kind, channels: int, update: Update, window: int) -> nn.Module:
    """A fusion by name."""
    if kind == "gru":
        return ConvGRU(channels, update)
    if kind == "mean":
        return MeanFusion()
    return ConvFusion(channels, window) if kind == "conv" else AttentionFusion(channels, window)
