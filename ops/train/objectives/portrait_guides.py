"""What holds AniPortraitGAN to the parametric model: its deformations, and where training is short its shape.

Equations 9 to 13 of the paper. The paper prints no weights for them: they are GRAM's and AniFaceGAN's where those have
them, and ours elsewhere, each by its name in the curves.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.losses.deformation import (
    expression_smoothness,
    imitation_loss,
    imitation_target,
    landmark_loss,
    minimal_deformation,
    occupancy_loss,
    pose_smoothness,
)
from models.portrait import Latents, PortraitGenerator
from models.portrait_body import People, expressive_face, face_landmarks, neutral_surface
from models.portrait_cameras import PORTRAIT_VIEW
from models.portrait_pose import NearestTransforms, TransformVolume
from ops.train.objectives.portrait_characters import Drawn
from ops.train.objectives.portrait_params import PortraitTraining
from ops.train.objectives.shared import Named
from ops.train.terms import UNTAUGHT

MOVES = 1e-4  # world units by which some expression must move a vertex for it to count as face; unpublished: our choice
SPREAD = 0.03  # head units about the body within which half of the points lie that know in from out; our choice


class Regressor(Protocol):
    """What tells codes from face pictures (N, 3, r, r): identity (N, 80) and expression (N, 52)."""

    def __call__(self, face: Tensor) -> tuple[Tensor, Tensor]: ...


class Steady(nn.Module):
    """A companion network that stays as it is, in evaluation mode, whatever the trainer does with the others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Steady:
        """Evaluation mode, whatever is asked for."""
        return super().train(False)

    def forward(self, *given: Tensor) -> Any:
        """What the network answers."""
        return self.network(*given)


class Guides:
    """The losses that need the parametric model. All return the weighted sum, and each loss by its name.

    Args:
        people: the parametric model.
        training: weights and numbers of points.
        mean: (80,) identity and (52,) expression of the mean person, whose face says nothing of whom it shows.
    """

    def __init__(self, people: People, training: PortraitTraining, mean: tuple[Tensor, Tensor]) -> None:
        self.people, self.training, self._mean = people, training, mean
        self._moving: Tensor | None = None

    def landmarks(self, regressor: Regressor, face: Tensor, latents: Latents) -> Named:
        """The codes that a network reads off generated faces (N, 3, r, r) give the landmarks asked for (Equation 9)."""
        wanted = face_landmarks(self.people, latents.identity, latents.expression)
        loss = landmark_loss(face_landmarks(self.people, *regressor(face)), wanted)
        average = face_landmarks(self.people, *(code[None].to(wanted) for code in self._mean))
        named = {"landmarks": loss, f"landmarks{UNTAUGHT}": landmark_loss(average, wanted)}
        return self.training.landmarks * loss, named

    def pose(self, network: PortraitGenerator, drawn: Drawn, lookup: NearestTransforms | TransformVolume) -> Named:
        """D^p stays near to average pooling on the portrait's samples (Equation 11)."""
        pose = network.pose
        assert pose.process is not None
        points, _, _ = network.sample_rays(drawn.portrait, network.config.portrait_view, self.training.portrait)
        volume = pose.half_volume(points, lookup)
        loss = pose_smoothness(pose.process(volume), pose.process(volume, fixed=True))
        return self.training.pose_smooth * loss, {"pose_smooth": loss}

    def expression(self, network: PortraitGenerator, latents: Latents, random: torch.Generator) -> Named:
        """D^e imitates the parametric face, smoothly and no more than it must (Equations 10, 12, 13)."""
        t = self.training
        neutral, offsets = expressive_face(self.people, latents.identity, latents.expression, self.moving)
        points = self._points_near(neutral + offsets, t.deformed_points, t.reach, random)
        film = network.styles(latents).expression
        displacement = network.expression(points, film)
        target, trust = imitation_target(points, neutral, offsets, t.reach)
        named = {
            "imitation": imitation_loss(displacement, target, trust),
            f"imitation{UNTAUGHT}": imitation_loss(torch.zeros_like(target), target, trust),
            "expression_smooth": expression_smoothness(
                lambda x: network.expression(x, film), points, t.step_deviation, random
            ),
            "minimal": minimal_deformation(displacement),
        }
        total = t.imitation * named["imitation"] + t.expression_smooth * named["expression_smooth"]
        return total + t.minimal * named["minimal"], named

    def shape(self, network: PortraitGenerator, latents: Latents, share: float, random: torch.Generator) -> Named:
        """The radiance field is dense inside the neutral body and clear far from it: a start, not in the paper.

        Hair and clothes lie about the body, so the shell outside it is left to the discriminators.

        Args:
            network: the generator.
            latents: of the characters.
            share: of the weight that is still in force, in [0, 1].
            random: of the points.
        """
        t = self.training
        vertices, normals = neutral_surface(self.people, latents.identity, latents.shape, t.vertex_step)
        near = self._points_near(vertices, t.deformed_points // 2, SPREAD, random)
        box = torch.rand(near.shape, generator=random, device=near.device) * 2 - 1
        half = PORTRAIT_VIEW.radius * 0.11  # somewhat more than the portrait's square shows
        points = torch.cat([near, box * half + box.new_tensor(PORTRAIT_VIEW.pivot)], dim=1)
        ahead = points.new_tensor([0.0, 0.0, -1.0]).expand_as(points)
        seen = network.radiance(points, ahead, network.styles(latents).radiance)
        loss = occupancy_loss(network.alpha(seen.density, torch.ones_like(seen.density)), points, vertices, normals)
        return t.shape * share * loss, {"shape": loss}

    @property
    def moving(self) -> Tensor:
        """(M,) vertices that some expression moves."""
        if self._moving is None:
            weights = self.people.skinning_weights
            units = torch.eye(len(self._mean[1]), device=weights.device, dtype=weights.dtype)
            reach = self.people.expression_offsets(units).norm(dim=-1).amax(dim=0)
            self._moving = (reach > MOVES).nonzero().squeeze(1)
        return self._moving

    @staticmethod
    def _points_near(vertices: Tensor, count: int, deviation: float, random: torch.Generator) -> Tensor:
        """(N, count, 3) points scattered about vertices (N, M, 3)."""
        n, m, _ = vertices.shape
        chosen = torch.randint(m, (n, count), generator=random, device=random.device)
        spread = torch.randn(n, count, 3, generator=random, device=random.device) * deviation
        return vertices.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3)) + spread
