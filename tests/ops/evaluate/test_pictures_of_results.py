"""Strips and figures: what stands where, and the same bytes again."""

import numpy as np

from ops.evaluate import plots, strips
from ops.evaluate.verification import roc


def test_strip_puts_object_in_row_and_angle_in_column():
    images = np.zeros((2, 3, 16, 16, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            images[row, column] = 40 * (row * 3 + column) + 10
    sheet = strips.strip(images, [-30, 0, 30], tile=32, gap=2)
    assert sheet.shape == (strips.HEADER + 66, 100, 3)
    for row in range(2):
        for column in range(3):
            top, left = strips.HEADER + row * 34, column * 34
            assert (sheet[top : top + 32, left : left + 32] == images[row, column, 0, 0]).all()
    assert (sheet[: strips.HEADER] < 128).any()  # the degrees are written above


def figure():
    rng = np.random.default_rng(0)
    canvas, (axes,) = plots.figure(3, 3)
    plots.roc_axes(
        axes, {f"{s}{a}": roc(rng.normal(1, 1, 20), rng.normal(0, 1, 30)) for s in "LR" for a in (60, 15)}, "t"
    )
    return canvas


def test_figures_have_the_same_bytes_again():
    assert plots.png(figure()) == plots.png(figure())
    text = plots.svg(figure())
    assert text == plots.svg(figure())
    assert b"dc:date" not in text
    assert b"L60" in text


def test_one_side_is_dashed_and_shares_its_colour():
    lines = {line.get_label(): line for line in figure().axes[0].get_lines()}
    assert lines["L60"].get_color() == lines["R60"].get_color() != lines["L15"].get_color()
    assert lines["L60"].get_linestyle() != lines["R60"].get_linestyle()
