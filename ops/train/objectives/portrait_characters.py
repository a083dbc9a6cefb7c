"""The characters that AniPortraitGAN is trained on: codes, posed bodies, and the two cameras that look at them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.portrait import Latents, PortraitConfig
from models.portrait_body import People, camera_to_head_frame, face_camera, portrait_label, posed_body
from models.portrait_pose import Body
from ops.train.priors import Priors


class Drawn(NamedTuple):
    """Characters to render: codes, bodies, and (N, 25) cameras of the portraits and of the faces, head frame."""

    latents: Latents
    body: Body
    portrait: Tensor
    face: Tensor


class Characters:
    """Draws characters from the estimated priors.

    Args:
        people: the parametric model.
        prior: where codes, poses and cameras come from.
        model: sizes of the generator and its two views.
        vertex_step: take every so many vertices of the body.
    """

    def __init__(self, people: People, prior: Priors, model: PortraitConfig, vertex_step: int = 1) -> None:
        self.people, self.prior, self.model, self.vertex_step = people, prior, model, vertex_step

    @torch.no_grad()
    def draw(self, n: int, random: torch.Generator) -> Drawn:
        """Codes, bodies and cameras of ``n`` characters, on the generator's device."""
        self.prior = self.prior.to(random.device)
        found = self.prior.sample(n, random)
        noise = torch.randn(n, self.model.noise, generator=random, device=random.device)
        latents = Latents(found.identity, found.shape, found.expression, found.pose, noise)
        return self.place(latents, camera_to_head_frame(found.camera))

    @torch.no_grad()
    def place(self, latents: Latents, about_body: Tensor) -> Drawn:
        """Bodies and cameras of characters; of cameras (N, 25) about the body, head frame, only the side counts."""
        body = posed_body(self.people, latents.identity, latents.shape, latents.pose, self.vertex_step)
        portrait = portrait_label(about_body, self.model.portrait_view)
        return Drawn(latents, body, portrait, face_camera(portrait, body.head_transform, self.model.face_view))
