"""What each pixel of a head's crop shows, by the network of ``train_parser``."""

from __future__ import annotations

import numpy as np
import torch

from models.parser import Parser
from ops.store import pictures
from ops.store.parsing import mirrored_classes


def class_scores(crop: np.ndarray, network: Parser) -> np.ndarray:
    """Probabilities of the classes, as the crop shows them and as its mirror image does.

    Args:
        crop: (S, S, 3) uint8 RGB, square.
        network: in evaluation mode.

    Returns:
        (2, 19, side, side) float32 at the network's own side, both in the crop's own frame. A mirrored crop gives the
        mirrored ones in the other order.
    """
    small = pictures.resize(crop, network.config.side)
    pair = torch.from_numpy(np.stack([small, small[:, ::-1]])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        plain, mirrored = network(pair).softmax(1)
    swap = torch.from_numpy(mirrored_classes().astype(np.int64))
    return torch.stack([plain, mirrored[swap].flip(-1)]).numpy()


def parse(crop: np.ndarray, network: Parser) -> np.ndarray:
    """(side, side) uint8 class numbers of a crop, the likeliest in the mean of class_scores."""
    return class_scores(crop, network).mean(0).argmax(0).astype(np.uint8)
