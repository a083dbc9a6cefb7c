"""A published animatable generator (InvertAvatar's or Next3D's) with the face mesh that moves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.avatar import AvatarConfig, AvatarGenerator
from models.avatar_mesh import AvatarMesh
from models.headmask import HeadMask
from models.next3d import Next3DConfig, Next3DGenerator
from ops.apply.generators import checkpoint_digest
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.store.tar import file_sha256
from ops.train.checkpoint import load_network
from ops.train.export import read_config, read_weights
from ops.train.priors import load_people

SYSTEM = "avatar"
NEXT3D = "next3d"  # the variant that is Next3D's network


@dataclass(frozen=True)
class Prior:
    """A generator of animatable heads, frozen.

    Attributes:
        generator: the averaged network.
        mesh: the face that poses it.
        outline: where a head is in a picture, by its fit.
        config: of the network.
        digest: of weights and configuration.
        folder: where it lies.
        record: its ``config.json``.
        device: where it is.
    """

    generator: AvatarGenerator
    mesh: AvatarMesh
    outline: HeadMask
    config: AvatarConfig
    digest: str
    folder: Path
    record: dict[str, Any] = field(repr=False)
    device: str = "cpu"


def load_prior(folder: Path, priors: Path = Path("data/priors"), device: str = "cpu") -> Prior:
    """The generator of a published checkpoint.

    Args:
        folder: e.g. data/checkpoints/avatar/avatar.
        priors: output of the stage ``priors``: the people whose faces the codes describe.
        device: of network and mesh.

    Raises:
        LineamentError: the checkpoint or the people are missing, damaged or of another system, or the people
            are not those of its training.
    """
    record = read_config(folder)
    if record.get("system") != SYSTEM:
        raise LineamentError(
            f"{folder}: a checkpoint of system {record.get('system')!r}, where one of 'avatar' is wanted "
            "(data/checkpoints/avatar/VARIANT)."
        )
    person = load_people(priors)
    if record.get("people", found := file_sha256(priors / "people.safetensors")) != found:
        raise LineamentError(
            f"{folder} was trained with other people than {priors}: its meshes belong to another parametric model. "
            "Give the priors of its training (dvc checkout), or train again."
        )
    where = f"{folder}/config.json: params.model"
    net: AvatarGenerator
    if record.get("variant") == NEXT3D:
        net = Next3DGenerator(validate(Next3DConfig, record["params"]["model"], where))
    else:
        net = AvatarGenerator(validate(AvatarConfig, record["params"]["model"], where))
    load_network(net, read_weights(folder, "generator"), folder / "generator.safetensors")
    mesh, outline = AvatarMesh(person, net.config).to(device), HeadMask(person).to(device)
    net.to(device).eval().requires_grad_(False)
    return Prior(net, mesh, outline, net.config, checkpoint_digest(record), folder, record, device)
