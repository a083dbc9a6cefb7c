"""Batches of pictures and cameras from training shards: the same ones for the same seed, from any point on.

The order is that of `ops.store.reader.EpochSampler`: every sample once an epoch, whatever the number of processes; a
step takes the next ``batch`` samples of it, and each process its share. A pool names which samples there are, and how
often. Pictures are decoded ahead of need by threads (the decoders release Python's lock), and kept decoded while they
fit in memory. Whether a picture is mirrored depends on seed, epoch and place in the pool alone, so neither workers nor
a resume change what is seen.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
import torch

from models.camera import LABEL_SIZE, check_label, mirror_label
from ops.runtime.errors import LineamentError, PictureError
from ops.store.parsing import CLASSES, mirrored_classes
from ops.store.pictures import decode, decode_grey
from ops.store.reader import EpochSampler, Position, ShardDataset
from ops.store.tar import Shard
from ops.train.ddp import Ranks
from ops.train.objective import Batch

POOLS = ("all", "front")
AHEAD = 3  # batches under way while one is being used; unpublished: our choice


class Fit(NamedTuple):
    """The parametric face behind a picture: codes ``identity`` (I,) and ``expression`` (E,)."""

    identity: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class Sample:
    """One decoded sample: ``image`` (H, W, 3) uint8, ``camera`` (25,); ``mask`` and ``parsing`` (H, W) uint8,
    ``face`` (h, h, 3) uint8 and ``fit``, or None."""

    image: np.ndarray
    camera: np.ndarray
    mask: np.ndarray | None = None
    parsing: np.ndarray | None = None
    face: np.ndarray | None = None
    fit: Fit | None = None

    @property
    def size(self) -> int:
        """Bytes it takes in memory."""
        return sum(a.nbytes for a in (self.image, self.camera, self.mask, self.parsing, self.face) if a is not None)


class Pictures:
    """The decoded samples of a folder of shards, by number, at one resolution.

    Args:
        folder: training shards, members ``jpg`` (or ``png``, ``webp``), ``json`` with ``camera``, and ``mask.png``,
            ``parsing.png`` where asked for.
        resolution: side of the pictures handed out; larger ones are reduced.
        masks, parsing: also read the masks, the class of each pixel.
        faces: side of the face pictures (``face.jpg``) that come along; 0 for none.
        cache_mb: how many megabytes of decoded samples to keep. The first ones read stay.
        fits: take samples with a fitted face alone, with its codes, and its camera in place of the picture's own. Of
            each expression unit, the one that takes its place in a mirrored face; None for no fits.

    Raises:
        LineamentError: there are no shards, or one is damaged.
    """

    def __init__(
        self,
        folder: Path,
        resolution: int,
        masks: bool = False,
        cache_mb: int = 0,
        parsing: bool = False,
        faces: int = 0,
        fits: Sequence[int] | None = None,
    ) -> None:
        self.dataset = ShardDataset(folder)
        self.resolution = resolution
        self.masks = masks
        self.parsing = parsing
        self.faces = faces
        self.fits = None if fits is None else np.array(fits)
        self._room = cache_mb * 1_000_000
        self._kept: dict[int, Sample] = {}
        # Cameras are small, and reading and checking one takes a third as long as decoding its picture: kept always.
        self._cameras = np.zeros((len(self.dataset), LABEL_SIZE), dtype=np.float32)
        self._known = np.zeros(len(self.dataset), dtype=bool)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def hash(self) -> str:
        """The hash of the shards' content."""
        return self.dataset.hash

    def read(self, number: int) -> Sample:
        """A decoded sample. May be called from several threads.

        Raises:
            LineamentError: names the shard and the sample that cannot be used, and why.
        """
        sample = self._kept.get(number)
        if sample is not None:
            return sample
        shard, key = self.dataset.place(number)
        with _usable(shard, key):
            sample = self._decode(shard, key, number)
        with self._lock:
            if sample.size <= self._room and number not in self._kept:
                self._room -= sample.size
                self._kept[number] = sample
        return sample

    def camera(self, number: int) -> np.ndarray:
        """The (25,) camera of a sample, without decoding its picture.

        Raises:
            LineamentError: names the shard and the sample whose record cannot be used, and why.
        """
        if not self._known[number]:
            shard, key = self.dataset.place(number)
            with _usable(shard, key):
                self._cameras[number] = _camera_of(self._labels(shard, key))
                self._known[number] = True
        return self._cameras[number]

    def codes(self, number: int) -> Fit:
        """The codes of a sample's face, without decoding its picture.

        Raises:
            LineamentError: names the shard and the sample whose record has no such face, and why.
        """
        shard, key = self.dataset.place(number)
        with _usable(shard, key):
            fit = self._codes(shard, key)
            if fit is None:
                raise ValueError("its fit was not asked for")
            return fit

    def pool(self, name: str) -> np.ndarray:
        """The numbers of the samples that a pool holds, with repetitions.

        Args:
            name: "" for each sample once, or with ``fits`` each that has one; "all" for each as often as its record's
                ``duplicates`` says, which evens out rare views (SphereHead, Eq. 10); "front" for those of "all" whose
                ``view`` is "front".

        Raises:
            LineamentError: no such pool, a record without those entries, or nothing in the pool.
        """
        if name == "":
            return np.arange(len(self)) if self.fits is None else self._fitted()
        if name not in POOLS:
            raise LineamentError(f"there is no pool of samples '{name}'; choose one of {', '.join(POOLS)}.")
        numbers: list[int] = []
        for number in range(len(self)):
            shard, key = self.dataset.place(number)
            with _usable(shard, key):
                record = _record(shard, key)
                if name == "all" or record["view"] == "front":
                    numbers += [number] * int(record["duplicates"])
        if not numbers:
            raise LineamentError(
                f"{self.dataset.folder}: no sample has the view 'front', which the pool '{name}' of this phase of "
                "training asks for. Add frontal pictures, or train on the pool 'all'."
            )
        return np.array(numbers)

    def _fitted(self) -> np.ndarray:
        numbers = []
        for number in range(len(self)):
            shard, key = self.dataset.place(number)
            with _usable(shard, key):
                if _record(shard, key)["fit"] is not None:
                    numbers.append(number)
        if not numbers:
            raise LineamentError(
                f"{self.dataset.folder}: not one sample has a fitted face, which animatable heads are trained on. "
                "Look at why fit_face rejects them (`lineament status`), then make the shards anew."
            )
        return np.array(numbers)

    def _labels(self, shard: Shard, key: str) -> dict[str, Any]:
        """What holds a sample's camera, and its codes: its record, or the fit in it."""
        record = _record(shard, key)
        if self.fits is None:
            return record
        if record["fit"] is None:
            raise ValueError("it has no fitted face")
        return record["fit"]

    def _codes(self, shard: Shard, key: str) -> Fit | None:
        if self.fits is None:
            return None
        label = self._labels(shard, key)
        fit = Fit(*(np.asarray(label[name], dtype=np.float32) for name in Fit._fields))
        if len(fit.expression) != len(self.fits):
            raise ValueError(
                f"its fit has {len(fit.expression)} expression units, where the face model has {len(self.fits)}: "
                "shards and priors belong to different models"
            )
        return fit

    def _decode(self, shard: Shard, key: str, number: int) -> Sample:
        fields = shard.fields(key)
        kind = next((kind for kind in ("jpg", "png", "webp") if kind in fields), "jpg")
        image = self._fit(self._decode_picture(kind, shard.read(key, kind)))
        mask = self._decode_mask(shard, key) if self.masks else None
        parsing = self._decode_parsing(shard, key) if self.parsing else None
        face = self._decode_face(shard, key) if self.faces else None
        return Sample(image, self.camera(number), mask, parsing, face, self._codes(shard, key))

    def _decode_face(self, shard: Shard, key: str) -> np.ndarray:
        if "face.jpg" not in shard.fields(key):
            raise ValueError("it has no face picture, which portraits are trained with")
        return self._fit(decode(shard.read(key, "face.jpg")), side=self.faces)

    def _decode_picture(self, kind: str, data: bytes) -> np.ndarray:
        if kind != "jpg":
            return decode(data)
        # A picture much larger than needed is decoded at a half, a quarter or an eighth of its size, never below need.
        return simplejpeg.decode_jpeg(data, min_height=self.resolution, min_width=self.resolution, min_factor=2)

    def _decode_mask(self, shard: Shard, key: str) -> np.ndarray:
        if "mask.png" not in shard.fields(key):
            raise ValueError("it has no mask, and masks are asked for: switch them off, or run segmentation")
        return self._fit(decode_grey(shard.read(key, "mask.png")))

    def _decode_parsing(self, shard: Shard, key: str) -> np.ndarray:
        if "parsing.png" not in shard.fields(key):
            raise ValueError("it has no parsing, and parsing is asked for: train a variant without, or run the parser")
        classes = self._fit(decode_grey(shard.read(key, "parsing.png")), cv2.INTER_NEAREST)
        if classes.max() >= len(CLASSES):
            raise ValueError(f"its parsing has class {classes.max()}; classes are 0 to {len(CLASSES) - 1}")
        return classes

    def _fit(self, image: np.ndarray, how: int = cv2.INTER_AREA, side: int | None = None) -> np.ndarray:
        height, width = image.shape[:2]
        side = side or self.resolution
        if height != width:
            raise ValueError(f"it is {width} x {height} pixels, not square")
        if width < side:
            raise ValueError(
                f"it has {width} x {width} pixels where training wants {side}: set the shards' resolution "
                "to at least that, or lower the model's"
            )
        if width > side:
            image = cv2.resize(image, (side, side), interpolation=how)
        return np.ascontiguousarray(image)


def _record(shard: Shard, key: str) -> dict[str, Any]:
    return json.loads(shard.read(key, "json"))


def _camera_of(record: dict[str, Any]) -> np.ndarray:
    camera = np.asarray(record["camera"], dtype=np.float32)
    if camera.shape != (LABEL_SIZE,):
        raise ValueError(f"its camera has {camera.size} values, not {LABEL_SIZE}")
    check_label(torch.from_numpy(camera))
    return camera


@contextmanager
def _usable(shard: Shard, key: str) -> Iterator[None]:
    """Name the sample that cannot be used, and say why."""
    try:
        yield
    except (PictureError, ValueError, KeyError) as error:
        problem = f"its record lacks {error}" if isinstance(error, KeyError) else str(error)
        raise LineamentError(
            f"{shard.path}: sample {key} cannot be used for training: {problem}. "
            "Make the shards anew (dvc repro -f on the stage that wrote them)."
        ) from None


class Batches:
    """An endless stream of this process's batches; iterate once.

    ``position`` is where a run goes on that has used all batches handed out so far.

    Args:
        pictures: the data set.
        batch: samples a step, over all processes; divisible by their number.
        seed: of order and mirroring.
        mirror: show half of the samples mirrored left to right, with the mirrored camera.
        ranks: this process among the others.
        start: where to begin.
        workers: decoding threads; 0 decodes when the batch is asked for.
        device: where the tensors shall be.
        pool: which samples; see :meth:`Pictures.pool`.

    Raises:
        LineamentError: fewer samples than a batch takes, or a batch that the processes cannot share.
    """

    def __init__(
        self,
        pictures: Pictures,
        batch: int,
        seed: int = 0,
        mirror: bool = False,
        ranks: Ranks | None = None,
        start: Position | None = None,
        workers: int = 0,
        device: torch.device | None = None,
        pool: str = "",
    ) -> None:
        ranks = ranks or Ranks()
        if batch % ranks.world:
            raise LineamentError(f"a batch of {batch} cannot be shared among {ranks.world} processes: not divisible.")
        self._pool = pictures.pool(pool)
        if len(self._pool) < batch:
            where = f" in the pool '{pool}'" if pool else ""
            raise LineamentError(
                f"{pictures.dataset.folder}: {len(self._pool)} samples{where}, fewer than a batch of {batch} takes "
                f"({ranks.world} process{'es' * (ranks.world > 1)} x {batch // ranks.world}). "
                "Make more samples, or lower `batch`."
            )
        self.pictures = pictures
        self.share = batch // ranks.world
        self.seed = seed
        self.mirror = mirror
        self.workers = workers
        self.device = device or torch.device("cpu")
        self._sampler = EpochSampler(len(self._pool), seed, ranks.rank, ranks.world, start)
        self.position = self._sampler.position
        self._flips: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=bool))

    def __iter__(self) -> Iterator[Batch]:
        plan = self._plan()
        if self.workers == 0:
            for numbers, mirrored, after in plan:
                self.position = after
                yield self._collate(numbers, mirrored, [self.pictures.read(n) for n in numbers])
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        waiting: deque[tuple[list[int], np.ndarray, Position, list[Future[Sample]]]] = deque()
        try:
            for numbers, mirrored, after in plan:
                waiting.append((numbers, mirrored, after, [pool.submit(self.pictures.read, n) for n in numbers]))
                if len(waiting) > AHEAD:
                    numbers, mirrored, self.position, futures = waiting.popleft()
                    yield self._collate(numbers, mirrored, [future.result() for future in futures])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _plan(self) -> Iterator[tuple[list[int], np.ndarray, Position]]:
        """Sample numbers and mirroring of each batch, and the position after it."""
        numbers: list[int] = []
        mirrored: list[bool] = []
        for place in self._sampler:
            numbers.append(int(self._pool[place]))
            mirrored.append(self._mirrored(self._sampler.position.epoch, place))
            if len(numbers) == self.share:
                yield numbers, np.array(mirrored), self._sampler.position
                numbers, mirrored = [], []

    def _mirrored(self, epoch: int, place: int) -> bool:
        if not self.mirror:
            return False
        if self._flips[0] != epoch:
            drawn = np.random.Generator(np.random.PCG64([self.seed, epoch, 1])).random(len(self._pool)) < 0.5
            self._flips = (epoch, drawn)
        return bool(self._flips[1][place])

    def _collate(self, numbers: list[int], mirrored: np.ndarray, samples: list[Sample]) -> Batch:
        cameras = torch.from_numpy(np.stack([s.camera for s in samples]))
        flip = torch.from_numpy(mirrored)
        image = self._pixels([s.image for s in samples], mirrored)
        batch: Batch = {
            "image": image,
            "camera": torch.where(flip[:, None], mirror_label(cameras), cameras).to(self.device),
            "index": torch.tensor(numbers, device=self.device),
            "mirrored": flip.to(self.device),
        }
        if self.pictures.masks:
            masks = _stack([s.mask for s in samples if s.mask is not None], mirrored)
            batch["mask"] = self._to_device(masks)[:, None].float().div_(255)
        if self.pictures.parsing:
            classes = [_turned(s.parsing, flip) for s, flip in zip(samples, mirrored) if s.parsing is not None]
            batch["parsing"] = self._to_device(_stack(classes, mirrored))
        if self.pictures.faces:
            batch["face"] = self._pixels([s.face for s in samples if s.face is not None], mirrored)
        if self.pictures.fits is not None:
            fits = [s.fit for s in samples if s.fit is not None]
            expression = np.stack([f.expression for f in fits])
            turned = np.where(mirrored[:, None], expression[:, self.pictures.fits], expression)
            batch["identity"] = self._to_device(np.stack([f.identity for f in fits]))
            batch["expression"] = self._to_device(turned)
        return batch

    def _pixels(self, images: list[np.ndarray], mirrored: np.ndarray) -> torch.Tensor:
        """(N, 3, H, W) float32 in [-1, 1]."""
        pixels = self._to_device(_stack(images, mirrored)).permute(0, 3, 1, 2)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor


def _turned(classes: np.ndarray, flip: bool) -> np.ndarray:
    """Class numbers as the mirrored picture has them: its left eye was the right one."""
    return mirrored_classes()[classes] if flip else classes


def _stack(arrays: list[np.ndarray], mirrored: np.ndarray) -> np.ndarray:
    """Pictures (H, W, ...) as one array (N, H, W, ...), the mirrored ones turned left to right."""
    whole = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for place, array, flip in zip(whole, arrays, mirrored):
        place[:] = array[:, ::-1] if flip else array
    return whole
