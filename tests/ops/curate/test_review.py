"""Decisions by hand: read, written, and applied to the tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.camera import check_label, intrinsics, pack_label, pose_on_sphere, project
from ops.curate import review
from ops.curate.camera import SCHEMA, angles
from ops.curate.review import Decision
from ops.runtime.errors import LineamentError

KEYS = [f"{n:016x}" for n in range(4)]
degrees = st.floats(-170, 170)


def camera(yaw: float, pitch: float, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[float]:
    pose = pose_on_sphere(torch.tensor(np.deg2rad(yaw)), torch.tensor(np.deg2rad(pitch)), 2.7)
    pose[:3, 3] += torch.tensor(shift, dtype=pose.dtype)
    return pack_label(pose, intrinsics().double()).tolist()


def table() -> pa.Table:
    reasons = [None, "turned_too_far", None, "camera_not_found"]
    rows = [
        {"id": key, "camera": camera(10.0 * n, 5.0) if n < 3 else None, "yaw": 10.0 * n, "pitch": 5.0, "roll": 0.0,
         "residual": 1.0, "distance": 2.7, "kept": reason is None, "reason": reason}
        for n, (key, reason) in enumerate(zip(KEYS, reasons))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_decisions_change_what_they_say_and_nothing_else():
    before = table()
    decisions = {
        KEYS[0]: Decision("reject"),
        KEYS[1]: Decision("accept"),
        KEYS[2]: Decision("pose", 120, -20, 15),
        KEYS[3]: Decision("accept"),
        "f" * 16: Decision("reject"),
    }
    after = review.apply(before, decisions).to_pylist()
    assert [(row["kept"], row["reason"]) for row in after] == [
        (False, "rejected_by_hand"), (True, None), (True, None), (False, "camera_not_found"),
    ]  # fmt: skip
    assert after[1] == {**before.to_pylist()[1], "kept": True, "reason": None}
    assert (after[2]["yaw"], after[2]["pitch"], after[2]["roll"]) == (120, -20, 15)
    label = torch.tensor(after[2]["camera"], dtype=torch.float64)
    check_label(label)
    assert angles(label[:16].view(4, 4).numpy()) == pytest.approx((120, -20, 15), abs=1e-3)
    assert review.apply(before, {}) is before


@given(degrees, st.floats(-80, 80), degrees)
def test_a_corrected_pose_has_its_angles_and_leaves_the_head_in_its_place(yaw, pitch, roll):
    before = torch.tensor(camera(30, 10, (0.2, -0.1, 0.3)), dtype=torch.float64)
    after = review.turned(before.tolist(), Decision("pose", yaw, pitch, roll))
    check_label(after)
    found = np.array(angles(after[:16].view(4, 4).numpy()))
    assert np.abs((found - [yaw, pitch, roll] + 180) % 360 - 180).max() < 1e-4
    origin = torch.zeros(1, 1, 3, dtype=torch.float64)
    for old, new in zip(project(before[None], origin), project(after[None], origin)):
        assert torch.allclose(old, new, atol=1e-9)


def test_without_a_roll_the_camera_keeps_its_own():
    before = review.turned(camera(0, 0), Decision("pose", 10, 5, -33))
    after = review.turned(before.tolist(), Decision("pose", 40, -5))
    assert angles(after[:16].view(4, 4).numpy()) == pytest.approx((40, -5, -33), abs=1e-6)


def test_rejections_hold_from_the_first_step():
    found = review.reject(
        table(), {KEYS[0]: Decision("reject"), KEYS[1]: Decision("reject"), KEYS[2]: Decision("accept")}
    )
    assert found.column("reason").to_pylist() == ["rejected_by_hand", "turned_too_far", None, "camera_not_found"]


def test_a_list_that_is_written_is_read(tmp_path):
    path = tmp_path / "review.csv"
    decisions = {
        KEYS[2]: Decision("pose", 1.5, -2, 3, "hair"),
        KEYS[1]: Decision("pose", 7, 8),
        KEYS[0]: Decision("reject", note='says "no", twice'),
    }
    review.write(decisions, path)
    assert review.read(path) == decisions
    first = path.read_bytes()
    review.write(review.read(path), path)
    assert path.read_bytes() == first
    assert review.read(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("row", "says"),
    [("xyz,accept,,,", "no sample id"), (f"{KEYS[0]},maybe,,,", "should be one of"), (f"{KEYS[0]},pose,a,,", "degrees"),
     (f"{KEYS[0]},pose,nan,0,0", "degrees"), (f"{KEYS[0]},pose,500,0,0", "degrees")],
)  # fmt: skip
def test_broken_lists_are_named(tmp_path, row, says):
    (tmp_path / "review.csv").write_text(f"id,decision,yaw,pitch,roll\n{row}\n")
    with pytest.raises(LineamentError, match=f"row 2.*{says}"):
        review.read(tmp_path / "review.csv")
