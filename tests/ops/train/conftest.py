"""Shards that the trainer's tests share."""

import importlib.util
import sys
from pathlib import Path

import pytest

# The modules beside this file are imported by name, also by the processes that tests start and kill.
HERE = Path(__file__).parent
for name in ("tiny", "tiny_avatar", "tiny_heads"):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Ten noise pictures of 8 x 8 pixels."""
    from tiny import write_shards

    return write_shards(tmp_path_factory.mktemp("shards") / "faces")
