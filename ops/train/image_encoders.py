"""Stage train_image_encoders: what a style misses of one picture, as changes of features (E_tex and E_tri).

python -m ops.train.image_encoders data/shards/faces data/priors data/checkpoints/avatar/avatar
    data/checkpoints/latent_encoder data/weights/embedded data/checkpoints/image_encoders
"""

from __future__ import annotations

from pathlib import Path

from ops.runtime.allocator import use_fast_allocator
from ops.runtime.stage import Stage, stage
from ops.train.encoders import EncoderParams, begin, first_pictures
from ops.train.objectives.image_encoders import ImageObjective, ImageTraining
from ops.train.run import train_and_publish


class TrainImageEncodersParams(EncoderParams):
    """Parameters of the stage. Of ``model``, all but ``latent`` counts."""

    objective: ImageTraining = ImageTraining()


@stage("train_image_encoders", TrainImageEncodersParams)
def main(
    s: Stage[TrainImageEncodersParams], shards: Path, priors: Path, prior: Path, latent: Path, weights: Path, out: Path
) -> None:
    """Train E_tex and E_tri on single pictures, on top of E_latent."""
    p = s.params
    model = p.model.fused(fusion=None)
    lesson = begin("image_encoders", p.model_dump(mode="json"), model, prior, priors, (latent, ("latent",)))
    train_and_publish(
        s,
        lambda pictures: ImageObjective(
            lesson.world(p.objective, weights), p.objective, first_pictures(pictures, p.trainer.grid_rows)
        ),
        shards,
        out,
        params=p.trainer,
        resolution=lesson.prior.config.resolution,
        fits=lesson.mirrored,
        facts=lesson.facts,
    )
    s.metrics({"prior": lesson.prior.digest, "likeness": p.objective.likeness.model_dump()})


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
