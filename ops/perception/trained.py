"""The labelling networks that the pipeline trains itself, loaded once a process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from torch import nn

from models.coefficients import Coefficients, CoefficientsConfig
from models.headpose import HeadPose, HeadPoseConfig
from models.parser import Parser, ParserConfig
from ops.runtime.errors import LineamentError
from ops.runtime.params import validate
from ops.train import checkpoint
from ops.train.export import CONFIG, read_config, read_weights

N = TypeVar("N", bound=nn.Module)

__all__ = ["coefficients", "headpose", "parser"]


@lru_cache(maxsize=4)
def coefficients(folder: Path) -> Coefficients:
    """The network of stage ``train_coefficients``, frozen.

    Raises:
        LineamentError: the folder lacks it, or holds another one.
    """
    model = validate(CoefficientsConfig, _model(folder, "coefficients"), f"{folder / CONFIG}: model")
    return _filled(Coefficients(model), folder).requires_grad_(False)


@lru_cache(maxsize=4)
def headpose(folder: Path) -> HeadPose:
    """The network of stage ``train_headpose``.

    Raises:
        LineamentError: the folder lacks it, or holds another one.
    """
    network = HeadPose(validate(HeadPoseConfig, _model(folder, "headpose"), f"{folder / CONFIG}: model"))
    return _filled(network, folder)


@lru_cache(maxsize=4)
def parser(folder: Path) -> Parser:
    """The network of stage ``train_parser``.

    Raises:
        LineamentError: the folder lacks it, or holds another one.
    """
    network = Parser(validate(ParserConfig, _model(folder, "parser"), f"{folder / CONFIG}: model"))
    return _filled(network, folder)


def _model(folder: Path, system: str) -> dict[str, object]:
    record = read_config(folder)
    if record.get("system") != system:
        raise LineamentError(f"{folder}: holds {record.get('system')!r}, where the network {system!r} is wanted.")
    return record["params"]["model"]


def _filled(network: N, folder: Path) -> N:
    checkpoint.load_network(network, read_weights(folder, "network"), folder)
    return network.eval()
