"""Photos and clips to an avatar: fit, encode, refine with every frame."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.avatar_mesh import AvatarMesh
from models.inversion import Frame as Encoded
from models.inversion import Inverter
from ops.apply.avatars import Prior, load_prior
from ops.apply.cameras import orbit
from ops.apply.inverters import encoder_digest, load_inverter
from ops.apply.saved_avatars import Avatar, save_avatar
from ops.apply.source import Frame, SourceParams, counts, explain, read_source
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.runtime.progress import Reporter
from ops.store.pictures import resize
from ops.train.export import CONFIG

CHECKPOINTS = Path("data/checkpoints")
ENCODERS = ("recurrent", "image_encoders")  # the furthest trained first
THUMBNAIL = 256  # pixels at most


def invert(arguments: argparse.Namespace) -> int:
    """``lineament invert``: make an avatar of the person in a photo, a clip, or a folder of both."""
    prior = load_prior(arguments.prior, arguments.priors, arguments.device)
    folder = arguments.encoder or newest_encoder()
    inverter = load_inverter(prior, folder)
    p = validate(SourceParams, {"frames": arguments.frames, "same_person": arguments.same_person}, "invert")
    reporter = Reporter("invert")
    files = partial(reporter.progress, desc="fit", unit="file")
    frames = read_source(arguments.source, prior.config.resolution, arguments.weights, p, files)
    avatar = make_avatar(prior, inverter, frames, encoder_digest(folder), partial(reporter.progress, unit="frame"))
    save_avatar(arguments.out, avatar, thumbnail(avatar, frames))
    left = explain(frames)
    print(f"{arguments.out}: an avatar; {counts(frames)}{'. Left out: ' + left if left else ''}")
    print(f"Move it: lineament reenact {arguments.out} DRIVER.mp4")
    return 0


def newest_encoder(root: Path | None = None) -> Path:
    """The furthest trained encoders under a folder of checkpoints, data/checkpoints if None.

    Raises:
        LineamentError: none has been trained.
    """
    root = root or CHECKPOINTS
    for name in ENCODERS:
        if (root / name / CONFIG).is_file():
            return root / name
    raise LineamentError(
        f"{root}: no encoders have been trained ({' or '.join(ENCODERS)}). Run `dvc repro train_recurrent`, or name "
        "their folder with --encoder."
    )


def make_avatar(
    prior: Prior,
    inverter: Inverter,
    frames: Sequence[Frame],
    encoder: str,
    watch: partial[Iterator[Frame]] | None = None,
) -> Avatar:
    """Show the usable frames to the encoders one after the other; constant memory, whatever their number.

    Args:
        prior: the generator and its face mesh.
        inverter: encoders on it.
        frames: at least one usable.
        encoder: digest of the encoders, for the record.
        watch: a progress bar.
    """
    used = [frame for frame in frames if frame.reason is None]
    state = None
    with torch.inference_mode():
        for frame in watch(used) if watch else used:
            shown = encoded(prior, frame)
            state = inverter.start(shown) if state is None else inverter.add(state, shown)
        if state is None:
            raise LineamentError(f"no frame can be used. {explain(frames)}")
        canonical = inverter.canonical(state)
    identity = np.stack([np.asarray(frame.identity, np.float64) for frame in used]).mean(0).astype(np.float32)
    record = {
        "prior": {"digest": prior.digest, "variant": prior.record["variant"]},
        "encoder": encoder,
        "frames": [frame.as_dict() for frame in frames],
    }
    return Avatar(prior, canonical, torch.from_numpy(identity)[None].to(canonical.ws), record)


def encoded(prior: Prior, frame: Frame) -> Encoded:
    """A fitted frame as encoders take it."""
    assert frame.picture is not None
    picture = torch.from_numpy(resize(frame.picture, prior.config.resolution)).permute(2, 0, 1)[None] / 127.5 - 1
    codes = [
        torch.from_numpy(np.asarray(c, np.float32))[None] for c in (frame.identity, frame.expression, frame.camera)
    ]
    identity, expression, label = (code.to(prior.device) for code in codes)
    shown = posed_frame(prior.mesh, picture.to(prior.device), identity, expression, label)
    return shown._replace(mask=prior.outline(identity, label, prior.config.resolution))


def posed_frame(mesh: AvatarMesh, image: Tensor, identity: Tensor, expression: Tensor, label: Tensor) -> Encoded:
    """A picture (N, 3, R, R) and what was fitted to it, for :class:`models.inversion.Inverter`."""
    size = mesh.config.plane_resolution

    def unwrap(picture: Tensor) -> tuple[Tensor, Tensor]:
        return mesh.unwrap(picture, identity, expression, label, size)

    return Encoded(image, label, mesh.surface(identity, expression), unwrap)


def thumbnail(avatar: Avatar, frames: Iterable[Frame]) -> np.ndarray:
    """The avatar from the front, with the expression of its first frame."""
    first = next(frame for frame in frames if frame.reason is None)
    picture = avatar.picture(torch.from_numpy(np.asarray(first.expression, np.float32))[None], orbit(0.0))
    return resize(picture, min(THUMBNAIL, len(picture)))
