"""The page about portraits: how they were trained and what they draw."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ops.report import training
from ops.report.page import Embedding, Html, Missing, Page, Section, facts

SYSTEM = "portrait"


def page(root: Path, how: Embedding) -> Page:
    """Training; of evaluation, that there is none."""
    return Page(
        "AniPortraitGAN and its ablations: head and shoulders that move by face, neck and shoulder codes.",
        [
            Section.of("training", "Training", partial(training.section, root, how, SYSTEM)),
            Section.of("evaluation", "Evaluation", _evaluation),
        ],
        facts(partial(training.facts, root, SYSTEM)),
        "The samples and curves show that training runs. How good the portraits are, and whether they do what their "
        "codes say, has not been measured: there is no headline number.",
    )


def _evaluation() -> Html:
    raise Missing(
        "no stage evaluates portraits. Their quality and the accuracy of control by codes have not been measured; the "
        "curves and grids above are all there is"
    )
