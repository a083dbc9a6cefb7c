"""Do portraits do what they are asked, where no face can be fitted? Measured by silhouettes, and by a small reader.

FaceMesh finds no face in small or blurred pictures, so the fits of :mod:`ops.evaluate.portrait` say nothing of them.
Two further measures do: how well the drawn silhouette covers the body that was asked for, pose and camera and all; and
what a network of ``train_coefficients`` reads off the faces, one that the generator was not trained against.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.portrait_body import UNITS
from models.render import raster
from ops.apply.portraits import Portraits
from ops.evaluate import intervals
from ops.perception.trained import coefficients
from ops.store.pictures import decode, resize
from ops.store.reader import ShardDataset
from ops.train.lessons import to_tensor

VARIES = 0.02  # deviation from which an expression unit counts as asked for; unpublished: our choice


@torch.inference_mode()
def silhouettes(portraits: Portraits, count: int, seed: int) -> dict[str, Any]:
    """Overlap (intersection over union) of drawn people with the posed bodies that were asked for.

    Hair and clothes are not the body's, so the overlap stays below one; that with ``another`` character's body, pose
    and camera says what a portrait without any control would reach.
    """
    size, people = portraits.sides["portrait"], portraits.people
    drawn, asked = [], []
    for number in range(count):
        latents, label = portraits.characters([seed * 1_000_003 + number])
        drawn.append(portraits.opacity(latents, label) > 0.5)
        vertices = people.posed(latents.shape, latents.pose, latents.identity, latents.expression) * UNITS
        screen = raster.to_screen(vertices, portraits.portrait_camera(label), size, size)
        asked.append(raster.rasterise(screen, people.triangles, size, size).mask[0].cpu().numpy())
    own = [_overlap(a, b) for a, b in zip(drawn, asked)]
    another = [_overlap(a, b) for a, b in zip(drawn, asked[1:] + asked[:1])]
    return {"asked": intervals.mean(np.array(own)), "another": intervals.mean(np.array(another))}


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@torch.inference_mode()
def read_codes(portraits: Portraits, reader: Path, data: ShardDataset, count: int, seed: int) -> dict[str, Any]:
    """Correlation of asked expressions with those that the network in ``reader`` reads off generated faces.

    ``photos``: the same of the data's own faces and the expressions that were fitted to them. A reader that reads
    nothing off photos proves nothing about portraits.
    """
    network = coefficients(reader)
    asked, found = [], []
    for number in range(count):
        latents, label = portraits.characters([seed * 1_000_003 + number])
        asked.append(latents.expression[0].cpu().numpy())
        found.append(network(to_tensor([portraits.render(latents, label, face=True)[0]]))[1][0].numpy())
    fitted, read = [], []
    for number in np.linspace(0, len(data) - 1, min(len(data), count)).round().astype(int):
        fields = data.read(int(number))
        label = json.loads(fields["json"])
        if label.get("expression") is not None:
            fitted.append(np.array(label["expression"]))
            face = resize(decode(fields["face.jpg"]), portraits.sides["face"])
            read.append(network(to_tensor([face]))[1][0].numpy())
    return {"generated": _correlation(asked, found), "photos": _correlation(fitted, read)}


def _correlation(asked: list[np.ndarray], found: list[np.ndarray]) -> dict[str, Any]:
    """Of the units that vary, each about its own mean."""
    if len(asked) < 2:
        return intervals.correlation(np.zeros(0), np.zeros(0))
    a, f = np.stack(asked), np.stack(found)
    varies = a.std(0) > VARIES
    return intervals.correlation((a - a.mean(0))[:, varies].ravel(), (f - f.mean(0))[:, varies].ravel())
