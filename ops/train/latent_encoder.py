"""Stage train_latent_encoder: pictures to the prior's styles (InvertAvatar's E_latent).

python -m ops.train.latent_encoder data/shards/faces data/priors data/checkpoints/avatar/avatar data/weights/embedded
    data/checkpoints/latent_encoder
"""

from __future__ import annotations

from pathlib import Path

from ops.runtime.allocator import use_fast_allocator
from ops.runtime.stage import Stage, stage
from ops.train.data import Pictures
from ops.train.encoders import EncoderParams, begin, first_pictures, teach
from ops.train.objectives.latent_encoder import LatentObjective, LatentTraining


class TrainLatentEncoderParams(EncoderParams):
    """Parameters of the stage. Of ``model``, ``latent`` counts."""

    objective: LatentTraining = LatentTraining()


@stage("train_latent_encoder", TrainLatentEncoderParams)
def main(s: Stage[TrainLatentEncoderParams], shards: Path, priors: Path, prior: Path, weights: Path, out: Path) -> None:
    """Train E_latent on real faces and the prior's own samples."""
    p = s.params
    lesson = begin("latent_encoder", p.model_dump(mode="json"), p.model, prior, priors)

    def build(pictures: Pictures) -> LatentObjective:
        shown = first_pictures(pictures, p.trainer.grid_rows)
        return LatentObjective(lesson.world(p.objective, weights), p.objective, shown)

    teach(s, lesson, build, shards, out)


if __name__ == "__main__":
    use_fast_allocator()
    raise SystemExit(main())
