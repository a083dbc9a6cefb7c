"""A published portrait generator, loaded once: characters by seed, asked for any expression, pose and camera.

A character is what a seed draws from the priors: identity, body, and the noise that stands for all else. What it is
asked for beyond what the priors hold is shown with a warning, or brought back into their range.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.parametric.base import JOINTS
from models.portrait import Latents, PortraitConfig, PortraitGenerator, Rendering, Styles
from models.portrait_body import camera_to_head_frame, face_camera, portrait_label, posed_body
from models.portrait_cameras import in_head_frame, view_label
from models.portrait_pose import Body
from models.stylegan import Precision
from ops.apply.generators import to_uint8
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.store.tar import file_sha256
from ops.train.checkpoint import load_network
from ops.train.export import CONFIG, read_config, read_weights
from ops.train.objectives.portrait import shade
from ops.train.priors import Priors, load_people

SYSTEM = "portrait"
LARGE = "portrait_superresolution"  # the folder of the second stage's checkpoints, beside the first's
BAND = 32  # rows shaded at a time: bounds memory
MEAN_OF = 1000  # codes whose styles are averaged for truncation; the public code takes 10,000
RANGE = 4.0  # standard deviations of the priors beyond which a code is out of range; unpublished: our choice


class Portraits:
    """The generator of a published checkpoint with the people and priors it was trained with.

    Args:
        folder: the checkpoint.
        priors: of its training.
        device: such as ``cuda``.
        precision: of the fields of points; that of the training if None.

    Raises:
        LineamentError: the checkpoint is incomplete, damaged or of another system, or the priors are not its own.
    """

    def __init__(
        self,
        folder: Path,
        priors: Path = Path("data/priors"),
        device: str = "cpu",
        precision: Precision | None = None,
    ) -> None:
        self.folder, self.device = folder, device
        self.record: dict[str, Any] = read_config(folder)
        if self.record.get("system") != SYSTEM:
            raise LineamentError(
                f"{folder}: a checkpoint of system {self.record.get('system')!r}, where one of 'portrait' is wanted "
                "(data/checkpoints/portrait/VARIANT)."
            )
        self._drawn_from = Priors.load(priors)  # on the CPU, so that a seed is the same character on every device
        self.prior = self._drawn_from.to(device)
        if file_sha256(priors / "priors.safetensors") != self.record["priors"]:
            raise LineamentError(
                f"{folder} was trained with other priors than {priors}: its codes may belong to another parametric "
                "model. Give the priors of its training (dvc checkout), or train again."
            )
        self.people = load_people(priors).to(device)
        params = self.record["params"]
        where = f"{folder}/config.json: params"
        self.config = validate(PortraitConfig, params["model"], f"{where}.model")
        if self.record["variant"] == "nearest":
            pose = self.config.pose.model_copy(update={"processing": False})
            self.config = self.config.model_copy(update={"pose": pose})
        if precision is not None:
            self.config = self.config.model_copy(update={"precision": precision})
        weights = read_weights(folder, "generator")
        self.large = any(name.startswith("upsampler.") for name in weights)
        self.net = PortraitGenerator(self.config, upsample=self.large)
        load_network(self.net, weights, folder / "generator.safetensors")
        self.net.to(device).eval().requires_grad_(False)
        self.sides = {"portrait": int(params["objective"]["portrait"]), "face": int(params["objective"]["face"])}
        self._step = int(params["objective"]["vertex_step"])
        self._mean: Styles | None = None

    def characters(self, seeds: list[int]) -> tuple[Latents, Tensor]:
        """What each seed draws: codes, and the camera (N, 25) about the body, head frame."""
        drawn, noise = [], []
        for seed in seeds:
            random = torch.Generator().manual_seed(seed)
            drawn.append(self._drawn_from.sample(1, random))
            noise.append(torch.randn(1, self.config.noise, generator=random))
        found = [torch.cat(parts).to(self.device) for parts in zip(*drawn)]
        identity, expression, shape, pose, label, _ = found
        latents = Latents(identity, shape, expression, pose, torch.cat(noise).to(self.device))
        return latents, camera_to_head_frame(label)

    def neutral(self, latents: Latents) -> Latents:
        """The same characters with a neutral face and pose."""
        still = torch.zeros_like(latents.pose)
        return replace(latents, expression=torch.zeros_like(latents.expression), pose=still)

    def camera(self, azimuth: float, elevation: float = 0.0) -> Tensor:
        """(1, 25) portrait camera from an angle in degrees: 0 in front, 90 on the subject's left."""
        angles = torch.tensor([[azimuth], [elevation]]).deg2rad()
        return view_label(self.config.portrait_view, angles[0], angles[1]).to(self.device)

    def out_of_range(self, latents: Latents, clamp: bool = False) -> tuple[Latents, list[str]]:
        """Codes beyond what the priors hold, in words; with ``clamp`` they are brought back to the range."""
        kept, words = {}, []
        for name in ("identity", "shape", "expression", "pose"):
            code = getattr(latents, name)
            low, high = self.prior.range(name, RANGE)
            outside = int(((code < low) | (code > high)).any(dim=0).sum())
            if outside:
                words.append(f"{outside} of {code[0].numel()} {name} values lie beyond the priors' range")
                kept[name] = torch.maximum(torch.minimum(code, high), low)
        return (replace(latents, **kept) if clamp and kept else latents), words

    def body(self, latents: Latents) -> Body:
        """The posed bodies of characters."""
        return posed_body(self.people, latents.identity, latents.shape, latents.pose, self._step)

    def portrait_camera(self, label: Tensor) -> Tensor:
        """The portrait cameras (N, 25) that look from where cameras (N, 25) about the body stand."""
        return portrait_label(label, self.config.portrait_view)

    def head_azimuth(self, latents: Latents, label: Tensor) -> float:
        """From which side the camera sees the posed head of one character, degrees: camera and pose together."""
        head = self.body(latents).head_transform
        local = in_head_frame(face_camera(self.portrait_camera(label), head, self.config.face_view), head)
        return float(torch.atan2(local[0, 3], local[0, 11]).rad2deg())

    @torch.inference_mode()
    def render(self, latents: Latents, label: Tensor, face: bool = False, truncation: float = 1.0) -> np.ndarray:
        """Pictures of characters, each by its own camera.

        Args:
            latents: of N characters.
            label: (N, 25) cameras about the body, head frame; the portrait stands upright at its view's distance.
            face: by the face camera instead, which follows the head.
            truncation: pulls appearance towards the mean.

        Returns:
            (N, R, R, 3) uint8 RGB.

        Raises:
            LineamentError: a picture is not finite.
        """
        shown = []
        for n in range(len(label)):
            one = latents[n : n + 1]
            shown.append(to_uint8(self._render(one, self.portrait_camera(label[n : n + 1]), face, truncation).image))
        return np.concatenate(shown)

    @torch.inference_mode()
    def opacity(self, latents: Latents, label: Tensor) -> np.ndarray:
        """(R, R) in [0, 1]: how much of each pixel of one character's portrait is person; see :meth:`render`."""
        return (
            self._render(latents, self.portrait_camera(label), face=False, truncation=1.0).opacity[0, 0].cpu().numpy()
        )

    def _render(self, latents: Latents, portrait: Tensor, face: bool, truncation: float) -> Rendering:
        body = self.body(latents)
        view = self.config.face_view if face else self.config.portrait_view
        label = face_camera(portrait, body.head_transform, view) if face else portrait
        side = self.sides["face" if face else "portrait"]
        styles = self.net.styles(latents)
        if truncation != 1.0:
            styles = styles.truncated(self._mean_styles(), truncation)
        lookup = self.net.pose.lookup(body)
        if self.large:
            atlases = self.net.atlases(styles)
            rays = self.net.cast(lookup, label, view, side // self.config.atlas.scale, margin=1)
            seen = self.net.shade_atlases(rays, styles, atlases, self.net.enlarge(atlases, styles), view.far)
        else:
            seen = shade(self.net, self.net.cast(lookup, label, view, side), styles, view.far, BAND)
        if not seen.image.isfinite().all():
            raise LineamentError(f"{self.folder}: draws values that are not finite; its training diverged.")
        return seen

    def _mean_styles(self) -> Styles:
        if self._mean is None:
            self._mean = self.net.mean_styles(self.characters(list(range(MEAN_OF)))[0])
        return self._mean


def largest(checkpoints: Path, variant: str) -> Path:
    """A variant's checkpoint below ``checkpoints``: the second stage's where there is one, else the first's."""
    large = checkpoints / LARGE / variant
    return large if (large / CONFIG).is_file() else checkpoints / SYSTEM / variant


def head_turn(pose: np.ndarray, share: float = 0.4) -> np.ndarray:
    """Joint turns (N, 6, 3) for heads that were tracked in videos.

    A tracked face tells how the head stands to the camera, not how the body does: the torso is taken to face the
    camera, and the turn is shared by neck and head.

    Args:
        pose: (N, 6) of ``fit_face``: the turn away from looking into the camera, axis-angle in the camera's axes, and
            the place.
        share: what the neck takes of it; unpublished: our choice.
    """
    turn = pose[:, :3] * np.array([1.0, -1.0, -1.0])  # the camera's y and z point against the world's
    joints = np.zeros((len(pose), len(JOINTS), 3))
    joints[:, JOINTS.index("neck")] = share * turn
    joints[:, JOINTS.index("head")] = (1 - share) * turn
    return joints
