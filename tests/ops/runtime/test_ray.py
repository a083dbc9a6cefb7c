"""The same pieces on a Ray cluster of several nodes, one of which is killed while it works."""

from __future__ import annotations

import functools
import os
import threading
import time
from pathlib import Path

import pytest

from ops.runtime.errors import LineamentError
from ops.runtime.parallel import run_tasks

ray = pytest.importorskip("ray", reason="the package ray is not installed (pip install 'lineament[ray]')")


def work(folder: Path, number: int) -> tuple[int, str]:
    """Leave a mark that the work has begun, take a while, and say on which node."""
    node = ray.get_runtime_context().get_node_id()
    Path(folder, f"{number}-{node}").touch()
    time.sleep(1.5)
    return number * number, node


def fail(number: int) -> int:
    raise LineamentError(f"the piece {number} is bad")


def where(number: int) -> str:
    return os.getcwd()


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    some = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    some.add_node(num_cpus=1)
    some.wait_for_nodes()
    before = {name: os.environ.get(name) for name in ("RAY_ADDRESS", "LINEAMENT_ENGINE")}
    os.environ |= {"RAY_ADDRESS": some.address, "LINEAMENT_ENGINE": "ray"}
    yield some
    ray.shutdown()
    some.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_a_node_that_is_killed_takes_no_work_with_it(cluster, tmp_path):
    doomed = cluster.list_all_nodes()[-1]

    def kill() -> None:
        while not any(path.name.endswith(doomed.node_id) for path in tmp_path.iterdir()):
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)  # in the midst of its first piece

    killer = threading.Thread(target=kill)
    killer.start()
    found = dict(run_tasks(functools.partial(work, tmp_path), range(5)))
    killer.join()
    assert {index: square for index, (square, _) in found.items()} == {n: n * n for n in range(5)}
    assert doomed.node_id not in {node for _, node in found.values()}
    begun = [path.name.split("-") for path in tmp_path.iterdir()]
    lost = {number for number, node in begun if node == doomed.node_id}
    assert lost
    assert lost <= {number for number, node in begun if node != doomed.node_id}, "done again elsewhere"


def test_an_error_of_the_work_comes_through_as_it_is(cluster):
    with pytest.raises(LineamentError, match="is bad"):
        list(run_tasks(fail, range(3)))


def test_tasks_run_in_the_drivers_folder(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dict(run_tasks(where, range(2))) == dict.fromkeys(range(2), str(tmp_path))


def test_an_unknown_engine_is_named(monkeypatch):
    monkeypatch.setenv("LINEAMENT_ENGINE", "spark")
    with pytest.raises(LineamentError, match="local or ray"):
        list(run_tasks(where, range(2)))
