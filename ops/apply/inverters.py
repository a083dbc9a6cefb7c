"""Trained encoders on the prior that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.inversion import InversionConfig, Inverter
from models.next3d import Next3DGenerator
from ops.apply.avatars import Prior
from ops.apply.generators import checkpoint_digest
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.train.checkpoint import Checkpoint, load_network, write_into
from ops.train.export import CONFIG, read_config, read_weights

SYSTEM = "inverter"
ENCODERS = ("latent", "texture", "triplane")  # a .safetensors file each


def make_inverter(prior: Prior, config: InversionConfig) -> Inverter:
    """Untrained encoders on a prior.

    Raises:
        LineamentError: the prior is Next3D, whose textures have one resolution; encoders change three.
    """
    if isinstance(prior.generator, Next3DGenerator):
        raise LineamentError(f"{prior.folder}: is Next3D; encoders need InvertAvatar (variant avatar).")
    return Inverter(prior.generator, config)


def save_inverter(folder: Path, inverter: Inverter, prior: str, **facts: Any) -> None:
    """Write encoders into a folder that exists; ``prior`` is the digest of the generator they belong to."""
    tensors = {name: dict(getattr(inverter, name).state_dict()) for name in ENCODERS}
    model = inverter.config.model_dump(mode="json")
    record = {"system": SYSTEM, "prior": prior, "params": {"model": model}, **facts}
    write_into(folder, CONFIG, Checkpoint(tensors, record))


def read_encoders(prior: Prior, folder: Path) -> tuple[InversionConfig, str]:
    """Configuration and digest of the encoders in a folder.

    Raises:
        LineamentError: missing, damaged, of another system, or trained on another prior; names both.
    """
    record = read_config(folder)
    if record.get("system") != SYSTEM:
        raise LineamentError(f"{folder}: a checkpoint of system {record.get('system')!r}, where encoders are wanted.")
    if record["prior"] != prior.digest:
        raise LineamentError(
            f"{folder}: these encoders were trained on another prior ({record['prior'][:12]}) than {prior.folder} "
            f"({prior.digest[:12]}). Train them again (dvc repro train_recurrent), or give the prior of their training."
        )
    config = validate(InversionConfig, record["params"]["model"], f"{folder}/config.json: params.model")
    return config, checkpoint_digest(record)


def load_encoders(inverter: Inverter, folder: Path, names: Sequence[str], fusions: bool = True) -> None:
    """Copy the named encoders of a folder into an inverter built for them.

    Args:
        inverter: where to.
        folder: of a checkpoint.
        names: which.
        fusions: False leaves the fusions of recurrent decoders as they are: the folder has none.

    Raises:
        LineamentError: missing, damaged, or of another architecture.
    """
    for name in names:
        encoder, found = getattr(inverter, name), read_weights(folder, name)
        if not fusions:
            found |= {key: value for key, value in encoder.state_dict().items() if ".fusion." in key}
        load_network(encoder, found, folder / f"{name}.safetensors")


def load_inverter(prior: Prior, folder: Path) -> Inverter:
    """The encoders of a folder, on their prior, ready to use.

    Raises:
        LineamentError: missing, damaged, of another system, or trained on another prior; names both.
    """
    config, _ = read_encoders(prior, folder)
    inverter = make_inverter(prior, config)
    load_encoders(inverter, folder, ENCODERS)
    return inverter.to(prior.device).eval().requires_grad_(False)


def encoder_digest(folder: Path) -> str:
    """Of encoders' weights and configuration."""
    return checkpoint_digest(read_config(folder))
