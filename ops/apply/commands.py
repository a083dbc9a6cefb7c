"""The sub-commands of ``lineament`` that use a trained generator. Networks are imported when a command runs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from ops.runtime.arguments import MOST_FRAMES, degrees, device, new_file, new_folder, number, seed, seeds, whole

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_SEED = "identity (default: the head that an inversion found, else 0)"
_PANELS = ("picture", "depth", "normals", "parsing")


def add_to(commands: Parsers) -> None:
    """Add all sub-commands."""
    sample = _command(commands, "sample", "pictures of heads by seed, and a grid of them")
    sample.add_argument("out", type=new_folder, help="folder for the pictures")
    sample.add_argument(
        "--seeds", type=seeds, default="0-7", help="identities, e.g. 0-7 or 1,5,9 (default: %(default)s)"
    )
    sample.add_argument(
        "--azimuths", type=degrees, nargs="+", default=[-60, -30, 0, 30, 60, 180], metavar="DEGREES",
        help="cameras: 0 in front, 90 on the subject's left, 180 behind (default: -60 -30 0 30 60 180)",
    )  # fmt: skip
    _precision(sample, "a head's super-resolution", None, "as trained, float32 on a CPU")
    _camera(sample)
    _truncation(sample)
    _show(sample, ["picture"])

    video = _command(commands, "video", "an mp4 of one head or avatar: a turntable, or a path through key frames")
    video.add_argument("out", type=new_file(".mp4"), help="name of the video, .mp4")
    video.add_argument("--seed", type=seed, help=_SEED)
    video.add_argument(
        "--frames", type=whole(1, MOST_FRAMES), default=120, help="of a turntable (default: %(default)s)"
    )
    video.add_argument(
        "--keys", nargs="+", metavar="FRAME:AZIMUTH[,ELEVATION[,RADIUS]]",
        help="a smooth path instead of a turntable, e.g. 0:0 40:90,10 80:180",
    )  # fmt: skip
    video.add_argument(
        "--side", type=whole(16, 4096), help="pixels of each picture (default: the network's, at least 256)"
    )
    video.add_argument("--every-sample", action="store_true", help="render empty space too; slower, for comparison")
    _precision(video, "a head's super-resolution", "half", "half")
    _rate(video)
    _camera(video)
    _truncation(video)
    _show(video, list(_PANELS))

    between = _command(commands, "interpolate", "from head to head, as stills (.png) or as a video (.mp4)")
    between.add_argument("out", type=new_file(".png", ".mp4"), help="name of the picture or video")
    between.add_argument("--seeds", type=seeds, default="0,1", help="identities in order (default: %(default)s)")
    between.add_argument(
        "--steps", type=whole(1, MOST_FRAMES), help="from each to the next (default: 8 stills, 48 frames)"
    )
    between.add_argument("--space", choices=["z", "w"], default="w", help="latents or styles (default: %(default)s)")
    between.add_argument("--azimuth", type=degrees, default=0.0, help="of the camera, degrees (default: %(default)s)")
    between.add_argument("--turn", action="store_true", help="the camera of a video goes once around")
    _rate(between)
    _camera(between)
    _truncation(between)
    _show(between, ["picture"])

    mix = _command(commands, "mix", "style mixing: coarse styles of some heads, fine styles of others")
    mix.add_argument("out", type=new_file(".png"), help="name of the picture, .png")
    mix.add_argument("--rows", type=seeds, default="0-3", help="seeds of the coarse styles (default: %(default)s)")
    mix.add_argument("--columns", type=seeds, default="4-8", help="seeds of the fine styles (default: %(default)s)")
    mix.add_argument("--layers", type=whole(1, 99), help="styles that a row gives (default: half)")
    mix.add_argument("--azimuth", type=degrees, default=0.0, help="of the camera, degrees (default: %(default)s)")
    _truncation(mix)

    mesh = _command(commands, "mesh", "a head's surface (.ply, .obj, .glb) and its density (.npz)")
    mesh.add_argument(
        "out",
        type=new_file(".ply", ".obj", ".glb", ".npz"),
        nargs="+",
        help="names of the files; their endings say what to write",
    )
    mesh.add_argument("--seed", type=seed, help=_SEED)
    mesh.add_argument("--resolution", type=whole(8, 1024), default=256, help="samples a side (default: %(default)s)")
    # EG3D's script takes 10 for its scale of densities
    mesh.add_argument(
        "--level", type=number(-1e6, 1e6), default=10.0, help="density of the surface (default: %(default)s)"
    )
    mesh.add_argument("--largest", action="store_true", help="keep the largest piece only")
    _truncation(mesh)

    invert = _command(commands, "invert-heads", "the head of a photo: styles, a tuned generator, a video", ["photo"])
    invert.add_argument("out", type=new_folder, help="folder for the result, which is a checkpoint of its own")
    invert.add_argument("--weights", type=Path, default=Path("data/weights/embedded"), help="default: %(default)s")
    invert.add_argument("--space", choices=["w", "w+"], default="w", help="W+ fits closer, W turns better (default: w)")
    # PanoHead's numbers
    invert.add_argument(
        "--steps", type=whole(1, 1_000_000), default=500, help="of finding the styles (default: %(default)s)"
    )
    invert.add_argument(
        "--tuning-steps", type=whole(0, 1_000_000), default=350, help="of tuning the generator (default: %(default)s)"
    )
    invert.add_argument(
        "--mask", type=number(0, 1e6), default=0.0, help="weight of the person's mask (default: %(default)s)"
    )
    invert.add_argument(
        "--frames", type=whole(0, MOST_FRAMES), default=120, help="of the video, 0 for none (default: %(default)s)"
    )

    shown = _command(commands, "strips", "control strips of a portrait: one property varies a row", system="portrait")
    shown.add_argument("out", type=new_file(".png"), help="name of the picture, .png")
    shown.add_argument("--seed", type=seed, default=0, help="character (default: %(default)s)")
    shown.add_argument("--columns", type=whole(2, 64), default=6, help="pictures a row (default: %(default)s)")
    shown.add_argument("--face", action="store_true", help="by the face camera, which follows the head")
    _portrait(shown, None, "as trained, float32")

    driven = _command(
        commands, "reenact-portrait", "a talking video: a clip's face drives a character", ["clip"], system="portrait"
    )
    driven.add_argument("out", type=new_file(".mp4"), help="name of the video, .mp4")
    driven.add_argument("--seed", type=seed, default=0, help="character (default: %(default)s)")
    driven.add_argument("--azimuth", type=degrees, default=0.0, help="of the camera, degrees (default: %(default)s)")
    driven.add_argument("--clamp", action="store_true", help="bring what lies beyond the priors back to their range")
    driven.add_argument("--weights", type=Path, default=Path("data/weights/embedded"), help="default: %(default)s")
    _portrait(driven, "half", "half")


def _portrait(command: argparse.ArgumentParser, precision: str | None, named: str) -> None:
    _precision(command, "a portrait's fields", precision, named)
    command.add_argument(
        "--priors", type=Path, default=Path("data/priors"), help="of the training (default: %(default)s)"
    )
    # AniPortraitGAN's public code
    command.add_argument(
        "--truncation", type=number(0, 2), default=0.7, help="1 for full variety (default: %(default)s)"
    )


def _command(
    commands: Parsers, name: str, text: str, before: Sequence[str] = (), system: str = "head"
) -> argparse.ArgumentParser:
    """A parser whose function is ``ops.apply.<name>.<name>``; ``before`` are files named before the checkpoint."""
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    for word in before:
        command.add_argument(word, type=Path)
    command.add_argument("checkpoint", type=Path, help=f"folder of a published {system} generator")
    command.add_argument("--device", type=device, default="cpu", help="cpu or cuda (default: %(default)s)")
    function = name.replace("-", "_")
    command.set_defaults(run=lazily(f"ops.apply.{function}", function))
    return command


def lazily(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command that is imported when it runs."""
    return lambda arguments: getattr(importlib.import_module(module), function)(arguments)


def _camera(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--elevation", type=number(-90, 90), default=0.0, help="of cameras, degrees (default: %(default)s)"
    )
    command.add_argument(
        "--radius", type=number(0.1, 100), default=2.7, help="of cameras, world units (default: %(default)s)"
    )


def _truncation(command: argparse.ArgumentParser) -> None:
    # SphereHead's default
    command.add_argument(
        "--truncation", type=number(0, 2), default=0.7, help="1 for full variety (default: %(default)s)"
    )
    command.add_argument("--cutoff", type=whole(0, 99), help="styles that are truncated (default: all)")


def _show(command: argparse.ArgumentParser, default: list[str]) -> None:
    command.add_argument(
        "--show", nargs="+", choices=_PANELS, default=default,
        help=f"side by side, as far as the network has them (default: {' '.join(default)})",
    )  # fmt: skip


def _precision(command: argparse.ArgumentParser, part: str, default: str | None, named: str) -> None:
    command.add_argument(
        "--precision", choices=["half", "float32"], default=default,
        help=f"of {part}; half is twice as fast where the processor has it, and differs by less than "
        f"a grey level (default: {named})",
    )  # fmt: skip


def _rate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rate", type=number(1, 240), default=24.0, help="frames a second (default: %(default)s)")
