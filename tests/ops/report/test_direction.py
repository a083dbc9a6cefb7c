"""Columns say which way is better, and a table that does explains its arrows once."""

import pytest

from ops.report.direction import KEY, arrow
from ops.report.page import table


@pytest.mark.parametrize(
    "title", ["PSNR, dB", "unseen: PSNR, dB", "SSIM", "csim_dlib_128d", "faces found", "psnr_2", "high_quality"]
)
def test_higher(title):
    assert arrow(title) == "↑"


@pytest.mark.parametrize(
    "title",
    [
        "FD",
        "fd_mobilenetv2_low",
        "kid_face",
        "paper: FID",
        "AKD",
        "cross_akd",
        "L1",
        "perceptual",
        "fake faces",
        "error, °",
    ],
)
def test_lower(title):
    assert arrow(title) == "↓"


@pytest.mark.parametrize(
    "title", ["", "variant", "L15", "parameters", "seconds", "pictures seen", "drawn / real", "terrors"]
)
def test_what_has_no_direction_gets_no_arrow(title):
    assert arrow(title) == ""


def test_a_table_with_arrows_explains_them_and_others_do_not():
    made = table(("variant", "PSNR, dB"), [["a", 12.5]], "What came out.")
    assert "PSNR, dB ↑" in made
    assert f"What came out. {KEY}</span>" in made
    assert KEY not in table(("variant", "steps"), [["a", 3]], "Steps")
