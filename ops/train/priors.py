"""What training draws its people from: identity, expression, body, pose and camera as they occur together.

The distribution is the observed pictures themselves, smoothed: a picture is drawn, and its codes are moved by a random
mixture of all pictures' deviations, scaled to a kernel's width (a smoothed bootstrap). The mixture is the same for all
codes, so what goes together in the data moves together; and what is drawn is pulled to the mean by as much as the
kernel spreads it, so means and covariances stay those of the data. Cameras turn about the head by a small angle.

A fit gives the likeliest code, which lies nearer to the mean than people do wherever a picture says little. What
variance identities and bodies thereby lack of their model's (one, in standard deviations) is given back as noise: the
variance of a code is that of its estimates plus the uncertainty of each.

No face model is needed here, and nothing but torch: the numbers are made by the stage ``priors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.camera import pack_label, unpack_label
from models.parametric.anny import axis_angle_matrix
from models.parametric.person import Person
from ops.runtime.errors import LineamentError
from ops.train import checkpoint

RECORD = "priors.json"
FORMAT = 2
REMEDY = "Run `dvc repro priors`."
CODES = ("identity", "expression", "shape", "pose")
STANDARD = ("identity", "shape")  # codes whose model has unit variance


class PriorSample(NamedTuple):
    """N people as they might be photographed.

    Attributes:
        identity: (N, 80). expression: (N, 52) in [0, 1]. shape: (N, 10).
        pose: (N, 6, 3) axis-angle of the six joints.
        camera: (N, 25) labels in the body's frame, in which the torso stays and the head turns.
        camera_face: (N, 25) labels of the same cameras in the head's frame.
    """

    identity: Tensor
    expression: Tensor
    shape: Tensor
    pose: Tensor
    camera: Tensor
    camera_face: Tensor


class Priors:
    """The joint distribution of what generators are conditioned on.

    Args:
        tensors: of M pictures, the fields of :class:`PriorSample`.
        bandwidth: of each of CODES, the kernel's width in standard deviations of the data.
        camera_degrees: standard deviation of the cameras' turn about each axis.
    """

    def __init__(self, tensors: Mapping[str, Tensor], bandwidth: Mapping[str, float], camera_degrees: float) -> None:
        self._data = {name: tensors[name].float() for name in PriorSample._fields}
        self.bandwidth, self.camera_degrees = dict(bandwidth), camera_degrees
        self._mean = {name: self._data[name].mean(0) for name in CODES}
        self._lacking = {name: (1 - self._data[name].var(0)).clamp_min(0).sqrt() for name in STANDARD}

    def __len__(self) -> int:
        return len(self._data["identity"])

    @classmethod
    def load(cls, folder: Path) -> Priors:
        """The distribution that the stage ``priors`` wrote.

        Raises:
            LineamentError: missing, damaged or of another format.
        """
        record = _record(folder)
        tensors = checkpoint.read_file(folder, "priors.safetensors", record, REMEDY)
        return cls(tensors, record["bandwidth"], record["camera_degrees"])

    def save(self, folder: Path, people: Mapping[str, Tensor] | None = None, **facts: object) -> None:
        """Write tensors and record into a folder that exists; ``facts`` join the record.

        Args:
            folder: where to.
            people: tensors of the parametric model that the codes belong to, for :func:`load_people`.
            facts: such as ``expression_names``, which that model needs, and ``faces``, whose they are:
                see :func:`people_kind`.
        """
        record = {"priors_format": FORMAT, "bandwidth": self.bandwidth, "camera_degrees": self.camera_degrees, **facts}
        tensors = {"priors": self._data, **({} if people is None else {"people": dict(people)})}
        checkpoint.write_into(folder, RECORD, checkpoint.Checkpoint(tensors, record))

    def to(self, device: torch.device | str) -> Priors:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in self._data.items()}
        return Priors(moved, self.bandwidth, self.camera_degrees)

    def range(self, name: str, deviations: float) -> tuple[Tensor, Tensor]:
        """Lowest and highest values of a code, so many standard deviations about its mean."""
        spread = self._data[name].std(0)
        if name in self._lacking:
            spread = (spread.square() + self._lacking[name].square()).sqrt()
        return self._mean[name] - deviations * spread, self._mean[name] + deviations * spread

    def mean(self, name: str) -> Tensor:
        """The mean of a code."""
        return self._mean[name]

    def sample(self, n: int, generator: torch.Generator | None = None) -> PriorSample:
        """Draw N people.

        Args:
            n: how many.
            generator: on the priors' device.
        """
        device = self._data["identity"].device
        m = len(self)
        chosen = torch.randint(m, (n,), generator=generator, device=device)
        mixture = torch.randn(n, m, generator=generator, device=device) / m**0.5
        drawn = {name: self._smooth(name, chosen, mixture) for name in CODES}
        for name, lacking in self._lacking.items():
            drawn[name] = drawn[name] + lacking * torch.randn(drawn[name].shape, generator=generator, device=device)
        drawn["expression"] = drawn["expression"].clamp(0, 1)
        turn = torch.randn(n, 3, generator=generator, device=device) * (self.camera_degrees * torch.pi / 180)
        return PriorSample(**drawn, **self._cameras(chosen, turn))

    def _smooth(self, name: str, chosen: Tensor, mixture: Tensor) -> Tensor:
        deviation = self._data[name] - self._mean[name]
        width = self.bandwidth[name]
        moved = deviation[chosen] + width * torch.tensordot(mixture, deviation, 1)
        return self._mean[name] + moved / (1 + width**2) ** 0.5

    def _cameras(self, chosen: Tensor, turn: Tensor) -> dict[str, Tensor]:
        """Cameras that turn about the head; in the body's frame they turn with it."""
        face, k = unpack_label(self._data["camera_face"][chosen])
        body, _ = unpack_label(self._data["camera"][chosen])
        head = body @ torch.linalg.inv(face)
        rotation = torch.eye(4).to(turn).repeat(len(turn), 1, 1)
        rotation[:, :3, :3] = axis_angle_matrix(turn)
        moved = rotation @ face
        return {"camera": pack_label(head @ moved, k), "camera_face": pack_label(moved, k)}


def load_people(folder: Path) -> Person:
    """The parametric model that the priors' codes belong to, as it was when they were estimated.

    Raises:
        LineamentError: missing, damaged or of another format.
    """
    record = _record(folder)
    tensors = checkpoint.read_file(folder, "people.safetensors", record, REMEDY)
    return Person(dict(tensors), tuple(record["expression_names"]))


def people_kind(folder: Path) -> str:
    """Whose faces the priors' people have: ``anny`` where the record says nothing, ``bfm`` where it says so.

    Raises:
        LineamentError: missing, damaged or of another format.
    """
    return str(_record(folder).get("faces", "anny"))


def _record(folder: Path) -> dict[str, Any]:
    record = checkpoint.read_record(folder / RECORD, REMEDY)
    if record.get("priors_format") != FORMAT:
        raise LineamentError(f"{folder}: priors of format {record.get('priors_format')!r}, not {FORMAT}. {REMEDY}")
    return record
