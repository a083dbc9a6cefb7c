"""Typed parameters of the studio."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from ops.runtime.params import Params

# What a real crawl holds besides usable portraits. "several" shows two or three people.
Rubbish = Literal[
    "blurred",
    "tiny",
    "no_person",
    "several",
    "duplicate",
    "near_duplicate",
    "truncated",
    "wrong_extension",
    "grey",
    "exif_rotated",
]
RUBBISH: tuple[Rubbish, ...] = get_args(Rubbish)


class RubbishShares(Params):
    """Pictures of each kind as a share of the portraits. All unpublished: our choice, after what face crawls report."""

    blurred: float = Field(default=0.03, ge=0, le=1)
    tiny: float = Field(default=0.02, ge=0, le=1)
    no_person: float = Field(default=0.03, ge=0, le=1)
    several: float = Field(default=0.02, ge=0, le=1)
    duplicate: float = Field(default=0.02, ge=0, le=1)
    near_duplicate: float = Field(default=0.02, ge=0, le=1)
    truncated: float = Field(default=0.015, ge=0, le=1)
    wrong_extension: float = Field(default=0.015, ge=0, le=1)
    grey: float = Field(default=0.015, ge=0, le=1)
    exif_rotated: float = Field(default=0.015, ge=0, le=1)


class StudioParams(Params):
    """What the studio renders: ``people`` identities, portraits of each, rubbish, clips, and whole bodies."""

    people: int = Field(default=1000, ge=1)  # unpublished: our choice
    views: int = Field(default=10, ge=0)  # unpublished: our choice
    size: int = Field(default=512, ge=64, le=4096)  # pixels; FFHQ-like sources of EG3D's family are 512
    seed: int = Field(default=0, ge=0)
    azimuth_front_share: float = Field(default=0.6, ge=0, le=1)  # unpublished: our choice; views drawn near the front
    azimuth_front_spread: float = Field(default=38.0, gt=0)  # degrees, standard deviation; unpublished: our choice
    elevation_spread: float = Field(default=9.0, ge=0)  # degrees, standard deviation; unpublished: our choice
    roll_spread: float = Field(default=4.0, ge=0)  # degrees, standard deviation; unpublished: our choice
    extent_min: float = Field(default=1.05, gt=0.5)  # world units across at the head: 39 cm; unpublished: our choice
    extent_max: float = Field(default=1.75, gt=0.5)  # 65 cm; unpublished: our choice
    neutral_share: float = Field(default=0.3, ge=0, le=1)  # views without expression; unpublished: our choice
    png_share: float = Field(default=0.04, ge=0, le=1)  # unpublished: our choice
    webp_share: float = Field(default=0.04, ge=0, le=1)  # unpublished: our choice
    rubbish: RubbishShares = RubbishShares()
    wide: int = Field(default=0, ge=0)  # head and shoulders of each person, as SHHQ's crops; unpublished: our choice
    wide_extent_min: float = Field(
        default=1.8, gt=0.5
    )  # world units across at the head: 67 cm; unpublished: our choice
    wide_extent_max: float = Field(default=2.2, gt=0.5, le=2.4)  # 81 cm; beyond, the model's waist and wrists show
    uv: bool = Field(default=False, description="whether the truth tells each pixel's texture coordinates")
    clips: int = Field(default=0, ge=0)  # videos of people who talk, one person after the other
    clip_frames: int = Field(default=75, ge=1)  # unpublished: our choice; three seconds
    clip_fps: float = Field(default=25.0, gt=0, le=120)  # unpublished: our choice
    clip_size: int = Field(default=512, ge=64, le=4096, multiple_of=2)  # pixels; as the pictures
    clip_azimuth_spread: float = Field(default=16.0, ge=0)  # degrees, standard deviation; unpublished: our choice

    full_body: int = Field(default=0, ge=0)  # pictures of whole people, from head to foot; unpublished: our choice
    full_body_size: int = Field(default=1024, ge=64, le=4096)  # pixels: the face is an eighth of it; our choice
    full_body_margin_min: float = Field(default=1.06, ge=1)  # side over the person's height; unpublished: our choice
    full_body_margin_max: float = Field(default=1.22, ge=1)  # unpublished: our choice

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.views + self.wide + self.clips + self.full_body:
            raise ValueError("a studio source needs views, wide or full-body pictures, or clips")
        return self
