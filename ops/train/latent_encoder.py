"""Stage train_latent_encoder: pictures to the prior's styles (InvertAvatar's E_latent).

python -m ops.train.latent_encoder data/shards/faces data/priors data/checkpoints/avatar/avatar data/weights/embedded
    data/checkpoints/latent_encoder
"""

from __future__ import annotations

from pathlib import Path

from ops.runtime.allocator import use_fast_allocator
from ops.runtime.stage import Stage, stage
from ops.train.encoders import EncoderParams, begin, first_pictures
from ops.train.objectives.latent_encoder import LatentObjective, LatentTraining
from ops.train.run import train_and_publish


class TrainLatentEncoderParams(EncoderParams):
    """Parameters of the stage. Of ``model``, ``latent`` counts."""

    objective: LatentTraining = LatentTraining()


@stage("train_latent_encoder", TrainLatentEncoderParams)
def main(s: Stage[TrainLatentEncoderParams], shards: Path, priors: Path, prior: Path, weights: Path, out: Path) -> None:
    """Train E_latent on real faces and the prior's own samples."""
    p = s.params
    lesson = begin("latent_encoder", p.model_dump(mode="json"), p.model, prior, priors)
    train_and_publish(
        s,
        lambda pictures: LatentObjective(
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
