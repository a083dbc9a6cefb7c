"""What the command line's help shows: the commands by purpose, and lines to type for each.

A test parses every line here and in the README, so they cannot go out of date unseen.
"""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "the lineage": ("demo", "repro", "status", "check", "profile", "plan"),
    "pictures, labels, weights": ("source", "review", "takedown", "lineage", "dataset", "weights", "model"),
    "trained heads": ("sample", "video", "interpolate", "mix", "mesh", "invert-heads"),
    "trained portraits": ("strips", "reenact-portrait"),
    "avatars": ("invert", "reenact", "ablate"),
    "how good is it?": ("evaluate", "compare"),
    "keeping it running": ("doctor", "models", "changes", "backup", "restore", "unlock", "instance"),
}

_HEAD = "data/checkpoints/heads/spherehead"
_PORTRAIT = "data/checkpoints/portrait/full"

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("lineament demo", "lineament demo --jobs 1              # slower, in half the memory"),
    "repro": (
        "lineament repro                       # all that is out of date",
        "lineament repro train_heads@spherehead --jobs 2",
    ),
    "plan": ("lineament plan                        # of params.yaml", "lineament plan --profile paper --devices 8"),
    "profile": ("lineament profile                     # which there are", "lineament profile use gpu"),
    "source add": (
        'lineament source add mine --folder ~/photos --licence "private"',
        "lineament source add listed --urls lists/heads.csv --refresh '0 3 * * *'",
        "lineament source add ffhq --dataset /data/ffhq --layout ffhq --licence CC-BY-NC-SA-4.0",
    ),
    "source remove": ("lineament source remove mine",),
    "review": ("lineament review                      # prints the address of a page on this machine",),
    "takedown add": (
        "lineament takedown add photo.jpg --reason 'she asked for it'",
        "lineament takedown add 7def1596259d5a50 https://example.org/photo.jpg",
    ),
    "lineage": (
        "lineament lineage 7def1596259d5a50    # the name of a sample in any table or shard",
        "lineament lineage photo.jpg",
    ),
    "dataset export": (
        "lineament dataset export data/shards/heads heads.zip",
        "lineament dataset export data/shards/heads heads.zip --repeat",
    ),
    "dataset import": ("lineament dataset import heads.zip data/shards/mine --licence CC-BY-4.0",),
    "model convert": ("lineament model convert SMPL_NEUTRAL.pkl --kind smpl data/weights/user/smpl",),
    "sample": (
        f"lineament sample {_HEAD} out --seeds 0-7",
        f"lineament sample {_HEAD} out --seeds 3 --azimuths 0 90 180 --show picture depth",
    ),
    "video": (
        f"lineament video {_HEAD} head.mp4 --seed 3",
        f"lineament video {_HEAD} path.mp4 --keys 0:0 40:90,10 80:180",
        "lineament video avatar around.mp4",
    ),
    "interpolate": (
        f"lineament interpolate {_HEAD} way.png --seeds 0,1",
        f"lineament interpolate {_HEAD} way.mp4 --seeds 0,1,2 --turn",
    ),
    "mix": (f"lineament mix {_HEAD} mix.png --rows 0-3 --columns 4-8",),
    "mesh": (
        f"lineament mesh {_HEAD} head.ply head.glb density.npz",
        f"lineament mesh {_HEAD} head.obj --resolution 128 --level 5 --largest",
    ),
    "invert-heads": (
        f"lineament invert-heads me.jpg {_HEAD} me",
        f"lineament invert-heads me.jpg {_HEAD} me --steps 100 --tuning-steps 50 --frames 0   # a quick look",
        "lineament video me me.mp4             # what it makes is a checkpoint",
    ),
    "strips": (f"lineament strips {_PORTRAIT} strips.png --seed 2",),
    "reenact-portrait": (f"lineament reenact-portrait talk.mp4 {_PORTRAIT} talking.mp4 --seed 2",),
    "invert": ("lineament invert me.jpg --out avatar", "lineament invert folder_of_me --out avatar --frames 16"),
    "reenact": (
        "lineament reenact avatar talk.mp4 --out me.mp4",
        "lineament reenact avatar motion.json --camera fixed --azimuth 20",
    ),
    "evaluate": (
        "lineament evaluate --list",
        f"lineament evaluate spherehead_table1 {_HEAD} --samples 64 --out result.json",
    ),
    "compare": (
        "lineament compare data/checkpoints/giraffe/giraffe data/checkpoints/giraffe/aamnce",
        "lineament compare data/shards/heads ../yesterday/data/shards/heads --out data.html",
        "lineament compare before.json after.json   # of `lineament evaluate … --out`",
    ),
    "models show": ("lineament models show giraffe/aamnce",),
    "models judge": ("lineament models judge giraffe",),
    "models promote": ("lineament models promote giraffe/aamnce 3 --why 'looks better from behind'",),
    "models rollback": ("lineament models rollback giraffe/aamnce",),
    "backup": ("lineament backup state.tar.gz",),
    "restore": ("lineament restore state.tar.gz",),
    "doctor": ("lineament doctor", "lineament doctor --json"),
}
