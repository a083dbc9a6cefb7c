"""An avatar as a folder: ``avatar.safetensors`` (styles, neural textures, static features), ``avatar.json`` (which
prior and encoders made it, whose face it is, what became of each frame) and ``thumbnail.png``.

It holds all that a frame needs but the prior's weights; any expression and camera can be asked of it. Equal avatars
are equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.avatar import AvatarGenerator, Features
from models.inversion import Canonical
from models.planes import PlaneField
from models.spherehead import HeadOutput
from ops.apply.avatars import Prior, load_prior
from ops.apply.generators import checkpoint_digest, to_uint8
from ops.runtime.errors import LineamentError
from ops.runtime.publish import publish
from ops.store.pictures import encode_png
from ops.train import checkpoint
from ops.train.checkpoint import Checkpoint
from ops.train.export import CONFIG, read_config

RECORD, FILE = "avatar.json", "avatar.safetensors"
REMEDY = "Make the avatar again: lineament invert."
PRIORS = Path("data/checkpoints/avatar")


def is_avatar(folder: Path) -> bool:
    """Whether a folder holds a saved avatar, not a checkpoint."""
    return (folder / RECORD).is_file()


@dataclass(frozen=True)
class Avatar:
    """One person, ready to be moved and looked at.

    Attributes:
        prior: the generator, the face mesh, where they lie.
        canonical: what inversion found, for a batch of one.
        identity: (1, 80) code of the face mesh.
        record: of ``avatar.json``.
    """

    prior: Prior
    canonical: Canonical
    identity: Tensor
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.identity.device

    @property
    def resolution(self) -> int:
        """Side of its pictures."""
        return self.prior.generator.config.resolution

    @torch.no_grad()
    def pose(self, expression: Tensor) -> Posed:
        """The avatar with face units (1, 52), for any number of cameras."""
        surface = self.prior.mesh.surface(self.identity, expression.to(self.identity))
        ws, textures, static = self.canonical
        planes = self.prior.generator.planes(ws, surface, textures, static, "const")
        return Posed(self.prior.generator, ws, planes)

    def neutral(self) -> Posed:
        """The avatar with a neutral face."""
        return self.pose(torch.zeros(1, self.prior.mesh.expression_size))

    def picture(self, expression: Tensor, label: Tensor) -> np.ndarray:
        """(R, R, 3) uint8 of one expression (1, 52) and camera (1, 25).

        Raises:
            LineamentError: it is not finite.
        """
        return to_uint8(self.checked(self.pose(expression).view(label)).image)[0]

    def checked(self, output: HeadOutput) -> HeadOutput:
        """The output, if its pictures are finite.

        Raises:
            LineamentError: they are not.
        """
        if not output.image.isfinite().all():
            raise LineamentError("the avatar draws values that are not finite: its prior or its encoders diverged.")
        return output


class Posed:
    """An avatar with one expression: its planes, seen from many cameras (compare :class:`models.headcache.HeadCache`).

    Args:
        net: the generator.
        ws: (1, w_count, w_size).
        planes: (1, 3C, P, P) of the posed head.
    """

    def __init__(self, net: AvatarGenerator, ws: Tensor, planes: Tensor) -> None:
        self.net, self.ws, self.planes = net, ws, planes
        self._field = PlaneField(planes, net.config.planes)

    @torch.no_grad()
    def field(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colour features and raw densities at world points (1, P, 3)."""
        return self.net.decoder(self._field.query(points))

    @torch.no_grad()
    def view(self, label: Tensor) -> HeadOutput:
        """What one camera (1, 25) sees."""
        seen = self.net.show(self.ws, self.planes, label.to(self.ws), jitter=False)
        return HeadOutput(seen.image, seen.raw, seen.depth, None, None, None, seen.feature)


def pack(canonical: Canonical, identity: Tensor) -> dict[str, Tensor]:
    """An avatar's tensors by name."""
    assert canonical.static.picture is not None
    named = {"ws": canonical.ws, "identity": identity, "static.picture": canonical.static.picture}
    named |= {f"texture.{n}": texture for n, texture in enumerate(canonical.textures)}
    return named | {f"static.{n}": level for n, level in enumerate(canonical.static.levels)}


def unpack(tensors: Mapping[str, Tensor]) -> tuple[Canonical, Tensor]:
    """What :func:`pack` named."""
    textures, levels = (
        tuple(tensors[f"{kind}.{n}"] for n in range(sum(f"{kind}.{n}" in tensors for n in range(len(tensors)))))
        for kind in ("texture", "static")
    )
    return Canonical(tensors["ws"], textures, Features(levels, tensors["static.picture"])), tensors["identity"]


def save_avatar(folder: Path, avatar: Avatar, thumbnail: np.ndarray) -> None:
    """Publish an avatar; its record joins sizes and hashes of the files."""
    with publish(folder, folder=True) as part:
        tensors = pack(avatar.canonical, avatar.identity)
        checkpoint.write_into(part, RECORD, Checkpoint({Path(FILE).stem: tensors}, dict(avatar.record)))
        (part / "thumbnail.png").write_bytes(encode_png(thumbnail))


def load_avatar(folder: Path, prior: Prior | Path | None = None, device: str = "cpu", **options: Any) -> Avatar:
    """A saved avatar.

    Args:
        folder: where it lies.
        prior: the generator that made it, loaded or its folder; looked for under data/checkpoints/avatar if None.
        device: of the avatar, and of a prior that is not loaded yet.
        options: of :func:`ops.apply.avatars.load_prior`.

    Raises:
        LineamentError: not a saved avatar, damaged, or made by another prior; names both.
    """
    record = checkpoint.read_record(folder / RECORD, REMEDY)
    made_by = record["prior"]
    if not isinstance(prior, Prior):
        prior = load_prior(prior or find_prior(made_by, folder), device=device, **options)
    if prior.digest != made_by["digest"]:
        raise LineamentError(
            f"{folder}: this avatar was made by another prior ({made_by['variant']}, {made_by['digest'][:12]}) than "
            f"the one given ({prior.digest[:12]}): its features mean nothing to it. {REMEDY}"
        )
    tensors = checkpoint.read_file(folder, FILE, record, REMEDY)
    try:
        canonical, identity = unpack({name: tensor.to(device) for name, tensor in tensors.items()})
    except KeyError as error:
        raise LineamentError(f"{folder / FILE}: lacks {error}. {REMEDY}") from None
    return Avatar(prior, canonical, identity, record)


def find_prior(made_by: Mapping[str, Any], avatar: Path, root: Path | None = None) -> Path:
    """The checkpoint of the prior that an avatar was made by.

    Raises:
        LineamentError: it is not there.
    """
    root = root or PRIORS
    known = {path.parent: checkpoint_digest(read_config(path.parent)) for path in sorted(root.glob(f"*/{CONFIG}"))}
    for folder, found in known.items():
        if found == made_by["digest"]:
            return folder
    others = ", ".join(f"{folder.name} {found[:12]}" for folder, found in known.items()) or "none"
    raise LineamentError(
        f"{avatar}: this avatar was made by another prior ({made_by['variant']}, {made_by['digest'][:12]}) than those "
        f"under {root} ({others}). Restore that prior (dvc checkout), name its folder with --prior, or make the avatar "
        "again: lineament invert."
    )
