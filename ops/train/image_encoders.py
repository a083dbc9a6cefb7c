"""Stage train_image_encoders: what a style misses of one picture, as changes of features (E_tex and E_tri).

python -m ops.train.image_encoders data/shards/faces data/priors data/checkpoints/avatar/avatar
    data/checkpoints/latent_encoder data/weights/embedded data/checkpoints/image_encoders
"""

from __future__ import annotations

from pathlib import Path

from ops.runtime.allocator import use_fast_allocator
from ops.runtime.params import validate
from ops.runtime.stage import Stage, stage
from ops.train.data import Pictures
from ops.train.encoders import EncoderParams, begin, first_pictures, teach
from ops.train.objectives.image_encoders import ImageObjective, ImageTraining


class TrainImageEncodersParams(EncoderParams):
    """Parameters of the stage. Of ``model``, all but ``latent`` counts."""

    objective: ImageTraining = ImageTraining()


@stage("train_image_encoders", TrainImageEncodersParams)
def main(
    s: Stage[TrainImageEncodersParams],
    shards: Path,
    priors: Path,
    prior: Path,
    latent: Path,
    weights: Path,
    out: Path,
    *,
    planes: str = "",
    texture_input: str = "",
) -> None:
    """Train E_tex and E_tri on single pictures, on top of E_latent. ``planes`` and ``texture_input`` take the place of
    the model's: baselines."""
    p = s.params
    given = {name: value for name, value in (("planes", planes), ("texture_input", texture_input)) if value}
    if given:
        p = validate(
            TrainImageEncodersParams, {**p.model_dump(), "model": {**p.model.model_dump(), **given}}, "options"
        )
    model = p.model.fused(fusion=None)
    lesson = begin("image_encoders", p.model_dump(mode="json"), model, prior, priors, (latent, ("latent",)))

    def build(pictures: Pictures) -> ImageObjective:
        shown = first_pictures(pictures, p.trainer.grid_rows)
        return ImageObjective(lesson.world(p.objective, weights), p.objective, shown)

    teach(s, lesson, build, shards, out)


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
