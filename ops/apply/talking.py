"""Stage ``reenact_portrait``: generated characters act what the faces of the data's clips do.

python -m ops.apply.talking data/shards/clips data/priors data/checkpoints data/reenacted/portrait

One video a clip, of the cut face beside the character; a clip of the user's own, with its sound, goes through
``lineament reenact-portrait``. A variant whose super-resolution has been trained acts with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ops.apply.pictures import Film, grid
from ops.apply.portraits import Portraits, largest
from ops.apply.reenact_portrait import acted, asked, beside
from ops.evaluate.portrait import find_variants
from ops.runtime.params import Params
from ops.runtime.publish import publish
from ops.runtime.stage import Stage, stage
from ops.store.pictures import decode, resize
from ops.store.reader import ShardDataset

COLUMNS, SHOWN = 8, 96  # of the preview: frames of each video, and their height in pixels


class ReenactPortraitParams(Params):
    """What is acted. All unpublished: our choice."""

    clips: int = Field(default=4, ge=1, description="that are acted, from the first on")
    frames: int = Field(default=250, ge=1, description="of each, at most")
    seed: int = Field(default=0, ge=0, description="the first clip's character; each clip has another")
    truncation: float = Field(default=0.7, ge=0, le=1)  # AniPortraitGAN gen_video.py
    clamp: bool = Field(default=True, description="bring codes back into the priors' range")


@stage("reenact_portrait", ReenactPortraitParams)
def main(s: Stage[ReenactPortraitParams], clips: Path, priors: Path, checkpoints: Path, out: Path) -> None:
    """Let characters of the first variant act the tracked clips."""
    p = s.params
    variant = find_variants(checkpoints)[0]
    portraits = Portraits(largest(checkpoints, variant), priors)
    about = {"variant": variant, "pixels": portraits.sides["portrait"]}
    count = json.loads((clips / "dataset.json").read_text(encoding="utf-8"))["samples"]
    strips: list[np.ndarray] = []
    told: dict[str, Any] = {}
    with publish(out, folder=True) as folder:
        for number in s.progress(range(min(p.clips, count)), desc="clips", unit="clip"):
            fields = ShardDataset(clips).read(number)
            label = json.loads(fields["json"])
            rows = [{key: label[key][n] for key in ("expression", "pose")} for n in range(len(label["frames"]))]
            rows = rows[: p.frames]
            latents, words = portraits.out_of_range(asked(portraits, p.seed + number, rows), clamp=p.clamp)
            name = f"{label['clip']}-{label['shot']}"
            told[name] = {"frames": len(rows), "out_of_range": words}
            both = []
            with Film(folder / f"{name}.mp4", label["fps"]) as film:
                for n, picture in enumerate(acted(portraits, latents, portraits.camera(0.0), p.truncation)):
                    both.append(beside(decode(fields[f"f{n:04d}.jpg"]), picture))
                    film.add(both[-1])
            chosen = np.linspace(0, len(both) - 1, COLUMNS).astype(int)
            strips += [resize(both[n][:, half], SHOWN) for half in _halves(both[0]) for n in chosen]
        (folder / "videos.json").write_text(json.dumps({**about, "videos": told}, indent=2) + "\n")
    s.log(f"{len(told)} of {count} clips acted" if count else "no clip was tracked: nothing to act")
    s.metrics({"videos": len(told), "frames": sum(video["frames"] for video in told.values()), **about})
    s.preview(grid(np.stack(strips), COLUMNS) if strips else np.full((SHOWN, SHOWN, 3), 250, np.uint8))


def _halves(both: np.ndarray) -> tuple[slice, slice]:
    """The driving face, and the character."""
    return slice(0, both.shape[1] - both.shape[0]), slice(both.shape[1] - both.shape[0], None)


if __name__ == "__main__":
    raise SystemExit(main())
