"""``lineament ablate``: InvertAvatar's baselines (its Table 4 and Figures 6 and 12), trained beside the encoders.

Each is trained by the stage of dvc.yaml that trains what it stands in for, with the same parameters but one, into a
folder of its own beside it. evaluate_avatar and evaluate_protocols measure what they find there.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.dag import Dag
from ops.runtime.errors import LineamentError

BASELINES: Mapping[str, tuple[str, tuple[str, str]]] = {
    "recurrent_mean": ("train_recurrent", ("--fusion", "mean")),
    "recurrent_conv": ("train_recurrent", ("--fusion", "conv")),
    "recurrent_attention": ("train_recurrent", ("--fusion", "attention")),
    "image_encoders_offsets": ("train_image_encoders", ("--planes", "offsets")),
    "image_encoders_posed": ("train_image_encoders", ("--texture-input", "posed")),
}


def command(root: Path, name: str) -> list[str]:
    """The words that train a baseline: those of its stage, with another output.

    Raises:
        LineamentError: no such baseline, or no such stage in dvc.yaml.
    """
    if name not in BASELINES:
        raise LineamentError(f"there is no baseline {name!r}; choose {', '.join(BASELINES)}.")
    stage, option = BASELINES[name]
    spec = Dag.load(root).stages.get(stage)
    if spec is None:
        raise LineamentError(f"{root / 'dvc.yaml'}: has no stage {stage}, which trains {name}.")
    words = shlex.split(spec.template.command)
    paths = words[: words.index("--metrics")]
    return [sys.executable, *paths[1:-1], str(Path(paths[-1]).with_name(name)), *option]


def ablate(arguments: argparse.Namespace) -> int:
    """``lineament ablate``."""
    names: Sequence[str] = arguments.names or tuple(BASELINES)
    for words in [command(Path(), name) for name in names]:
        print(f"== {words[-3]} {words[-2]} {words[-1]}", flush=True)
        code = subprocess.call(words)
        if code:
            return code
    print("Compare them: dvc repro --single-item --force evaluate_avatar, then dvc repro --single-item --force report")
    return 0
