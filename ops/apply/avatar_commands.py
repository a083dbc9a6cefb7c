"""The sub-commands of ``lineament`` that make and move avatars."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.apply.commands import Parsers, lazily
from ops.runtime.arguments import MOST_FRAMES, degrees, device, new_file, new_folder, number, whole
from ops.train.ablations import BASELINES


def add_to(commands: Parsers) -> None:
    """Add all sub-commands."""
    invert = commands.add_parser(
        "invert",
        help="an animatable avatar from a photo, a clip, or a folder of both",
        description="Make an avatar of one person: every frame that can be fitted refines it, the others say why not.",
    )
    invert.add_argument("source", type=Path, metavar="PHOTO|CLIP|FOLDER")
    invert.add_argument("--out", type=new_folder, default=Path("avatar"), help="folder (default: %(default)s)")
    invert.add_argument(
        "--frames", type=whole(1, MOST_FRAMES), default=32, help="of each clip at most (default: %(default)s)"
    )
    invert.add_argument(
        "--same-person", type=float, default=0.6, metavar="DISTANCE",
        help="of two descriptors of one person, at most (default: %(default)s, dlib's; rendered people want 0.4)",
    )  # fmt: skip
    invert.add_argument(
        "--encoder", type=Path, help="trained encoders (default: the furthest trained under data/checkpoints)"
    )
    invert.add_argument(
        "--prior", type=Path, default=Path("data/checkpoints/avatar/avatar"), help="generator (default: %(default)s)"
    )
    _common(invert)
    invert.set_defaults(run=lazily("ops.apply.invert_avatar", "invert"))

    reenact = commands.add_parser(
        "reenact",
        help="a video of an avatar that does what a clip's face does",
        description="Move an avatar by a clip of anyone's face, or by coefficients: "
        '.json {"expression": [[52], ...], "camera": [[25], ...], "fps": 25} or .parquet with these columns.',
    )
    reenact.add_argument("avatar", type=Path, help="folder that `lineament invert` made")
    reenact.add_argument("driver", type=Path, metavar="CLIP|JSON|PARQUET")
    reenact.add_argument(
        "--out", type=new_file(".mp4"), default=Path("reenactment.mp4"), help="video (default: %(default)s)"
    )
    reenact.add_argument(
        "--camera", choices=["free", "fixed"], default="free",
        help="free: the head moves as the driver's does; fixed: only the face moves (default: %(default)s)",
    )  # fmt: skip
    reenact.add_argument("--azimuth", type=degrees, default=0.0, help="of a fixed camera, degrees")
    reenact.add_argument("--elevation", type=number(-90, 90), default=0.0, help="of a fixed camera, degrees")
    reenact.add_argument("--alone", action="store_true", help="without the driver's picture beside it")
    reenact.add_argument("--rate", type=number(1, 240), help="frames a second (default: the driver's)")
    reenact.add_argument("--prior", type=Path, help="generator (default: the one under data/checkpoints that made it)")
    _common(reenact)
    reenact.set_defaults(run=lazily("ops.apply.reenact", "reenact"))

    ablate = commands.add_parser(
        "ablate",
        help="train InvertAvatar's baselines beside its encoders",
        description="Train the baselines of InvertAvatar's ablations, all or those named, with the parameters of "
        "train_recurrent and train_image_encoders: other ways to merge frames, offsets in place of transforms, posed "
        "pictures in place of unwrapped ones. evaluate_avatar then measures them beside the encoders.",
    )
    ablate.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BASELINES))
    ablate.set_defaults(run=lazily("ops.train.ablations", "ablate"))


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--priors", type=Path, default=Path("data/priors"), help="people (default: %(default)s)")
    command.add_argument("--weights", type=Path, default=Path("data/weights/embedded"), help="default: %(default)s")
    command.add_argument("--device", type=device, default="cpu", help="cpu or cuda (default: %(default)s)")
