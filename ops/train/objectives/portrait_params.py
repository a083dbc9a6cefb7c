"""Sizes, weights and rates of AniPortraitGAN's two stages of training, each with its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ops.runtime.params import Params

Variant = Literal["full", "whole_only", "no_torso", "crop", "nearest"]


class GameParams(Params):
    """What both stages have: sizes of pictures, rates, and the discriminators' weights."""

    portrait: int = Field(default=128, ge=8)  # Section 3.6: first stage
    face: int = Field(default=128, ge=8)  # Section 3.6: first stage
    lr_generator: float = Field(default=2e-5, gt=0)  # AniFaceGAN
    lr_discriminator: float = Field(default=2e-4, gt=0)  # AniFaceGAN
    betas: tuple[float, float] = (0.0, 0.9)  # AniFaceGAN
    clip: float = Field(default=0.3, gt=0)  # AniFaceGAN: largest norm of the gradient
    r1: float = Field(default=1.0, ge=0)  # AniFaceGAN
    r1_every: int = Field(default=1, ge=1)  # AniFaceGAN
    whole: float = Field(default=0.1, ge=0)  # Section 4: weights of the three discriminators
    face_weight: float = Field(default=1.0, ge=0)
    torso: float = Field(default=0.5, ge=0)
    band: int = Field(default=32, gt=0)  # rows shaded at a time; the others' activations are computed again
    reuse: bool = False  # the discriminators judge what the generator has just learnt from; saves a third of a step
    vertex_step: int = Field(default=1, ge=1)  # every so many vertices of the body; unpublished: our choice


class PortraitTraining(GameParams):
    """The first stage: with losses that teach the generator to deform."""

    deformation_pace: float = Field(default=1.0, gt=0)  # share of lr_generator at which D^e and D^p learn; our choice
    # Who reads codes off generated faces, for the landmark loss; the paper: Deep3DFaceRecon, where people are BFM's
    reader: Literal["train_coefficients", "deep3dfacerecon"] = "train_coefficients"
    landmarks: float = Field(default=3000.0, ge=0)  # unpublished: our choice, for distances in head units
    imitation: float = Field(default=3000.0, ge=0)  # unpublished: our choice, likewise
    shape: float = Field(default=0.0, ge=0)  # not in the paper; ours, where training is short: see guide_shape
    shape_images: int = Field(default=1_000_000, gt=0)  # after so many images it is gone
    pose_smooth: float = Field(default=1.0, ge=0)  # unpublished: our choice
    expression_smooth: float = Field(default=1000.0, ge=0)  # unpublished: our choice
    minimal: float = Field(default=10.0, ge=0)  # unpublished: our choice
    step_deviation: float = Field(default=0.005, gt=0)  # unpublished: our choice; head units, Equation 12
    reach: float = Field(default=0.02, gt=0)  # unpublished: our choice; head units, see imitation_target
    deformed_points: int = Field(default=4096, gt=0)  # unpublished: our choice; samples that Equations 10 to 13 look at


class SuperresolutionTraining(GameParams):
    """The second stage: U alone, against discriminators of large pictures."""

    portrait: int = Field(default=512, ge=8)  # Section 3.6
    face: int = Field(default=256, ge=8)  # Section 3.6
    lr_generator: float = Field(default=2e-4, gt=0)  # GRAM-HD: second stage
    r1: float = Field(default=3.0, ge=0)  # GRAM-HD: second stage
    consistency: float = Field(default=1.0, ge=0)  # GRAM-HD: enlarged pictures shrink to the coarse ones ...
    atlas_consistency: float = Field(default=1.0, ge=0)  # GRAM-HD: ... and enlarged manifolds to what they were
