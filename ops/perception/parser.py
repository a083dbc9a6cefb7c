"""What each pixel of a head's crop shows, by the network of ``train_parser``."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from models.parser import Parser
from ops.curate.crop import crop_quad, square_quad
from ops.perception.guided import guided
from ops.perception.voting import likeliest
from ops.store import pictures
from ops.store.parsing import CLASSES, mirrored_classes

_PARTS = "skin left_brow right_brow left_eye right_eye glasses nose mouth upper_lip lower_lip"
FACE = [CLASSES.index(name) for name in _PARTS.split()]
REACH, FLAT = 1 / 12, 1e-3  # of the filter that draws the person along the picture's borders; unpublished: our choice
# Rare classes weigh more in the lessons and the background least, so the network sees somewhat too much of a person;
# of the lessons held out, this share has the best overlap. Unpublished: our choice
PERSON = 0.6
LEAST = 0.03  # share of a crop below which there is no face to look at; unpublished: our choice


def class_scores(crop: np.ndarray, network: Parser) -> np.ndarray:
    """Probabilities of the classes, as the crop shows them and as its mirror image does.

    Where there is a face, a look from nearer says which part of it is which; how much is face, the look at the whole
    crop has said.

    Args:
        crop: (S, S, 3) uint8 RGB, square.
        network: in evaluation mode.

    Returns:
        (2, 19, side, side) float32 at the finer of both looks, both in the crop's own frame. A mirrored crop gives the
        mirrored ones in the other order.
    """
    config = network.config
    window = round(config.face_side * max(1.0, config.side * config.face_share / config.face_side))
    side = round(window / config.face_share)
    scores = _look(crop, network.crop, config.side)
    place = face_place(scores.mean(0)[FACE].sum(0), config.face_share)
    scores = F.interpolate(scores, size=side, mode="bilinear", align_corners=False)
    if place is not None:
        left, top = np.rint(place * side - window / 2).astype(int).tolist()
        quad = square_quad((np.array([left, top]) + window / 2) / side * len(crop), window / side * len(crop))
        near = _look(crop_quad(crop, quad, config.face_side), network.face, config.face_side)
        near = F.interpolate(near, size=window, mode="bilinear", align_corners=False)[:, FACE]
        inside = scores[:, FACE, top : top + window, left : left + window]
        parts = near / near.sum(1, keepdim=True).clamp_min(1e-12) * inside.sum(1, keepdim=True)
        scores[:, FACE, top : top + window, left : left + window] = parts
    return scores.numpy()


def face_place(share: torch.Tensor, window: float) -> np.ndarray | None:
    """(2,) the middle of a face in a crop, (x, y) in [0, 1], so that a window about it lies within the crop.

    Args:
        share: (S, S) how much each pixel is a face's.
        window: the window's side by the crop's.

    Returns:
        None where there is hardly any face.
    """
    if float(share.mean()) < LEAST:
        return None
    along = (torch.arange(len(share), dtype=share.dtype) + 0.5) / len(share)
    middle = torch.stack([share.sum(0) @ along, share.sum(1) @ along]) / share.sum()
    return middle.clamp(window / 2, 1 - window / 2).double().numpy()


def _look(crop: np.ndarray, network: torch.nn.Module, side: int) -> torch.Tensor:
    """(2, 19, side, side) probabilities by one network, for the crop and for its mirror image, turned back."""
    small = pictures.resize(crop, side)
    pair = torch.from_numpy(np.stack([small, small[:, ::-1]])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        plain, mirrored = network(pair).softmax(1)
    swap = torch.from_numpy(mirrored_classes().astype(np.int64))
    return torch.stack([plain, mirrored[swap].flip(-1)])


def named(scores: np.ndarray, crop: np.ndarray) -> list[np.ndarray]:
    """(S, S) uint8 class numbers of a crop (S, S, 3) by each of several scores (K, 19, side, side), see class_scores.

    The person's outline follows the picture's borders; within it each pixel has the likeliest of the person's classes.
    """
    persons = guided(1 - scores[:, 0], crop, REACH, FLAT) > PERSON
    return [
        np.where(person, likeliest(score[1:], len(crop)) + 1, 0).astype(np.uint8)
        for person, score in zip(persons, scores)
    ]


def parse(crop: np.ndarray, network: Parser) -> np.ndarray:
    """(S, S) uint8 class numbers of a crop (S, S, 3) by the mean of class_scores."""
    return named(class_scores(crop, network).mean(0, keepdims=True), crop)[0]
