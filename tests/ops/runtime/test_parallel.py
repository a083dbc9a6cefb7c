"""Linear algebra runs on one thread in every worker, and in this process too: results do not depend on the cores."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ops.runtime.errors import LineamentError
from ops.runtime.parallel import default_workers, run_tasks


def blas_threads(_: int) -> int:
    np.linalg.eigvalsh(np.eye(3))
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


@pytest.mark.parametrize("workers", [1, 2])
def test_linear_algebra_takes_one_thread(workers):
    with threadpool_limits(2, user_api="blas"):
        assert [threads for _, threads in run_tasks(blas_threads, range(2), workers)] == [1, 1]
        assert blas_threads(0) == 2


def test_the_number_of_workers_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("LINEAMENT_WORKERS", "3")
    assert default_workers() == 3
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv("LINEAMENT_WORKERS", wrong)
        with pytest.raises(LineamentError, match="LINEAMENT_WORKERS"):
            default_workers()
