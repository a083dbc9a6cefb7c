"""What a head shows, as pictures to look at: colours, depth, normals, parsing, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models import camera
from models.spherehead import HeadOutput
from ops.apply.generators import to_uint8
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.parsing import CLASSES, coloured
from ops.store.pictures import encode_png, resize

PANELS = ("picture", "depth", "normals", "parsing")
_SOLID = 0.5  # opacity from which a pixel counts as the head


def normals(output: HeadOutput, label: Tensor) -> Tensor:
    """(N, 3, h, h) unit normals in the camera's axes (x right, y up, z towards it), from depths.

    Args:
        output: what was seen; its depths are distances along rays.
        label: (N, 25) the cameras it was seen from.
    """
    side = output.depth.shape[-1]
    origin, direction = camera.rays(label.to(output.depth), side)
    points = (origin + direction * output.depth.flatten(1).unsqueeze(-1)).transpose(1, 2).unflatten(2, (side, side))
    padded = F.pad(points, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    world = F.normalize(torch.linalg.cross(down, across, dim=1), dim=1)
    pose, _ = camera.unpack_label(label.to(world))
    flip = world.new_tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    return torch.einsum("nij,nihw->njhw", pose[:, :3, :3], world) * flip


def panels(output: HeadOutput, label: Tensor, wanted: Sequence[str], side: int) -> np.ndarray:
    """The wanted pictures of each view side by side, (N, side, side * len(wanted), 3) uint8.

    Depth is light where the head is near; what is not head is black, in a variant that knows its mask.
    """
    shown = []
    solid = np.ones((1, *output.depth.shape[2:], 1), bool)
    if output.mask is not None:
        solid = output.mask[:, 0, :, :, None].cpu().numpy() > _SOLID
    for name in wanted:
        if name == "picture":
            made = to_uint8(output.image)
        elif name == "depth":
            depth = output.depth[:, 0].float().cpu().numpy()
            centre = np.linalg.norm(label[:, 3:12:4].cpu().numpy(), axis=1)[:, None, None]
            grey = np.clip(0.5 + (centre - depth) * 1.1, 0, 1) * 255  # half the box before and behind the centre
            made = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, -1) * solid
        elif name == "normals":
            made = to_uint8(normals(output, label)) * solid
        elif output.parsing is not None:
            classes = output.parsing.argmax(dim=1).clamp_max(len(CLASSES) - 1)
            made = coloured(classes.cpu().numpy())
        else:
            continue
        shown.append(np.stack([_to_side(picture, side, name == "parsing") for picture in made.astype(np.uint8)]))
    return np.concatenate(shown, axis=2)


def _to_side(picture: np.ndarray, side: int, labels: bool) -> np.ndarray:
    if labels:
        return cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST)
    return resize(picture, side)


def grid(images: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """(N, H, W, 3) pictures in rows of ``columns`` on white."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_png(path: Path, image: np.ndarray) -> None:
    """Publish (H, W, 3) uint8 as PNG."""
    with publish(path) as temporary:
        temporary.write_bytes(encode_png(image))


class Film:
    """An mp4 that appears when it is whole.

    Args:
        path: must end in ``.mp4``.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float = 24.0) -> None:
        if path.suffix != ".mp4":
            raise LineamentError(f"{path}: a video's name ends in .mp4.")
        self.path, self.rate, self.frames = path, rate, 0
        self._publish = publish(path)
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Film:
        self._temporary = self._publish.__enter__()
        self._part = self._temporary.with_name(self._temporary.name + ".mp4")  # OpenCV chooses the format by the name
        return self

    def add(self, image: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB; the size of the first frame is that of all.

        Raises:
            LineamentError: OpenCV cannot write mp4 here.
        """
        height, width = (n // 2 * 2 for n in image.shape[:2])  # the codec wants even sides
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._part), code, self.rate, (width, height))
            if not self._writer.isOpened():
                raise LineamentError(f"{self.path}: this build of OpenCV cannot write mp4 files.")
        self._writer.write(cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self.frames:
            self._part.replace(self._temporary)
        self._part.unlink(missing_ok=True)
        self._publish.__exit__(kind, error, trace)  # type: ignore[arg-type]
