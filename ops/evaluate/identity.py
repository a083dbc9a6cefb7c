"""Who is it: recognisers that turn aligned face pictures into identity embeddings, pluggable and named.

The default, ``dlib_128d``, ships with the packages. ``lightcnn29``, which the AamNCE paper used, needs weights that
the user supplies. A generated picture is an aligned crop with a known pose, so the chip a recogniser wants is a fixed
part of it: no detector runs, and so no poor picture can drop out of an evaluation unseen.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.dlibface import DlibFace
from ops.evaluate.dlibfile import read_network
from ops.runtime.errors import LineamentError
from ops.runtime.weights import require

Name = Literal["dlib_128d", "lightcnn29", "arcface_ir50"]

# The aligned crop (FFHQ's rule, and EG3D's): its side is max(4 |eye to eye|, 3.6 |eyes to mouth|) and the eyes' centre
# lies 0.1 |eyes to mouth| above the middle. With a mouth 1.15 eye distances below the eyes, the second term decides.
_EYES_TO_MOUTH = 1 / 3.6  # of the crop's side
_EYE_TO_EYE = _EYES_TO_MOUTH / 1.15
_EYES_Y = 0.5 - 0.1 * _EYES_TO_MOUTH


@dataclass(frozen=True)
class Chip:
    """The part of an aligned crop that a recogniser looks at.

    Attributes:
        left, top, side: in units of the crop's side.
        pixels: side of the square picture the recogniser gets.
    """

    left: float
    top: float
    side: float
    pixels: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """(H, H, 3) uint8 aligned crop to (pixels, pixels, 3) uint8, filtered when it shrinks."""
        scale = image.shape[0]
        box = (self.left * scale, self.top * scale, (self.left + self.side) * scale, (self.top + self.side) * scale)
        size = (self.pixels, self.pixels)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))


def _dlib_chip() -> Chip:
    # dlib's get_face_chip, padding 0.25: eye corners at x 0.1206, 0.3341, 0.6461, 0.8596 and y about 0.2211 of the
    # unpadded face; so the eyes' centres are 0.5255 / 1.5 apart at y (0.25 + 0.2211) / 1.5.
    side = _EYE_TO_EYE / (0.5255 / 1.5)
    return Chip(0.5 - side * (0.25 + 0.4900) / 1.5, _EYES_Y - side * (0.25 + 0.2211) / 1.5, side, 150)


def _lightcnn_chip() -> Chip:
    # LightCNN's README, test pictures of 128 px: eyes' centre at y 40 (ec_y), mouth 48 below it (ec_mc_y).
    side = _EYES_TO_MOUTH / (48 / 128)
    return Chip(0.5 - side / 2, _EYES_Y - side * 40 / 128, side, 128)


def _arcface_chip() -> Chip:
    # InsightFace's template of 112 px: eyes' centre at (55.9, 51.6), mouth 40.7 below it.
    side = _EYES_TO_MOUTH / (40.7 / 112)
    return Chip(0.5 - side * 55.9 / 112, _EYES_Y - side * 51.6 / 112, side, 112)


DLIB_CHIP, LIGHTCNN_CHIP, ARCFACE_CHIP = _dlib_chip(), _lightcnn_chip(), _arcface_chip()


class Recogniser(Protocol):
    """What evaluation needs of a recogniser.

    Attributes:
        name: goes beside every number made with it.
        digest: sha256 of its weights.
        rule: how embeddings are compared, in words.
    """

    name: str
    digest: str
    rule: str

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Aligned crops, each (H, H, 3) uint8 RGB, to (N, D) float32 embeddings; one a picture, always."""
        ...

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(Na, D) and (Nb, D) embeddings to (Na, Nb) float64 scores, larger for more alike."""
        ...


class Dlib128:
    """dlib's ResNet embedding (128-D, dlib_face_recognition_resnet_model_v1), compared by Euclidean distance."""

    name = "dlib_128d"
    rule = "minus the Euclidean distance"
    batch = 32  # pictures at once: bounds memory

    def __init__(self) -> None:
        path = require("dlib_128d")
        self.digest = _sha256(path)
        self._net = _dlib_network(path)

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        found = [np.zeros((0, 128), np.float32)]
        for start in range(0, len(images), self.batch):
            chips = np.stack([DLIB_CHIP.cut(image) for image in images[start : start + self.batch]])
            found.append(self._net(torch.from_numpy(chips).permute(0, 3, 1, 2).float()).numpy())
        return np.concatenate(found)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.astype(np.float64), b.astype(np.float64)
        return -np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0))


@dataclass(frozen=True)
class _Kind:
    """What sets one recogniser by cosine apart from another."""

    chip: Chip
    dimensions: int
    network: str
    see: Callable[[np.ndarray], Tensor]


def _grey(chip: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(Image.fromarray(chip).convert("L")).copy())[None] / 255.0


def _colour(chip: np.ndarray) -> Tensor:
    return torch.from_numpy(chip.copy()).permute(2, 0, 1) / 127.5 - 1


_KINDS = {
    "lightcnn29": _Kind(LIGHTCNN_CHIP, 256, "models.features:LightCNN29", _grey),  # AamNCE paper, section 4
    "arcface_ir50": _Kind(ARCFACE_CHIP, 512, "models.arcface:ArcFaceIR50", _colour),  # InvertAvatar's CSIM
}


class ByCosine:
    """LightCNN-29 (256-D) or ArcFace's IR-50 (512-D), whose weights the user supplies, compared by cosine.

    Args:
        name: which.
        weights: the authors' checkpoint, as safetensors or as a torch file that holds tensors only.
        sha256: if given, the file must have it.
    """

    rule = "cosine"
    batch = 32  # pictures at once: bounds memory

    def __init__(self, name: Name, weights: Path, sha256: str = "") -> None:
        self._kind = _KINDS[name]
        self.name: str = name
        if not weights.is_file():
            raise LineamentError(
                f"{weights}: no such file. Put the weights of {name} there, or use recogniser: dlib_128d."
            )
        self.digest = _sha256(weights)
        if sha256 and sha256 != self.digest:
            raise LineamentError(f"{weights}: sha256 is {self.digest}, not {sha256} as pinned. Wrong or damaged file.")
        module, network = self._kind.network.split(":")
        try:
            self._net = getattr(importlib.import_module(module), network).from_state(read_tensors(weights))
        except ValueError as error:
            raise LineamentError(f"{weights}: not the weights of {name}: {error}.") from None

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        found = [np.zeros((0, self._kind.dimensions), np.float32)]
        for start in range(0, len(images), self.batch):
            chips = [self._kind.see(self._kind.chip.cut(image)) for image in images[start : start + self.batch]]
            found.append(self._net(torch.stack(chips)).numpy())
        return np.concatenate(found)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return cosine(a, b)


def load_recogniser(name: Name, weights: Path | None = None, sha256: str = "") -> Recogniser:
    """The recogniser of that name.

    Raises:
        LineamentError: its weights are missing, have another hash, or are not its own.
    """
    if name == "dlib_128d":
        return Dlib128()
    return ByCosine(name, require(name) if weights is None else weights, sha256)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(Na, D) and (Nb, D) to the (Na, Nb) cosines in [-1, 1]; of a zero vector, 0."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    a /= np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    b /= np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    return np.clip(a @ b.T, -1.0, 1.0)


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file or of a torch file; nothing but tensors is ever unpickled.

    A ``state_dict`` inside, or Deep3DFaceRecon's ``net_recon``, is taken out, and a ``module.`` before every name
    (DataParallel) is cut off.

    Raises:
        LineamentError: neither format, or a torch file that holds more than tensors.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  a damaged or hostile file can raise anything; all of it means this
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LineamentError(f"{path}: cannot be read as safetensors or as a torch file of tensors: {reason}") from None
    for inner in ("state_dict", "net_recon"):
        if isinstance(state, dict) and isinstance(state.get(inner), dict):
            state = state[inner]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LineamentError(f"{path}: holds something other than named tensors.")
    return {key.removeprefix("module."): value for key, value in state.items()}


@functools.cache
def _dlib_network(path: Path) -> DlibFace:
    return read_network(path)


@functools.cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
