"""Window means, the CSV, and the drawing."""

import math

import numpy as np
import pytest
import torch

from ops.runtime.errors import LineamentError
from ops.train.curves import Curves, draw, read_curves
from ops.train.window import Window


def test_window_means_are_over_the_steps_that_had_the_value():
    window = Window()
    for step in range(4):
        window.add({"a": torch.tensor(float(step))}, 0.5)
        window.add({"a": torch.tensor(2.0 + step)}, 0.5, new=False)
        if step % 2 == 0:
            window.add({"lazy": torch.tensor(10.0 + step)})
    assert window.means() == {"a": 2.5, "lazy": 11.0}
    window.clear()
    assert window.means() == {}


def test_a_window_goes_on_exactly_from_its_state():
    whole, first, second = Window(), Window(), Window()
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    for step, value in enumerate(values):
        whole.add({"a": value})
        (first if step < 3 else second).add({"a": value})
        if step == 2:
            second.load(first.state(), torch.device("cpu"))
    assert second.means() == whole.means()


def test_csv_survives_being_read_and_written(tmp_path):
    curves = Curves()
    curves.add(5, 40, {"a": 1 / 3, "b": 1e-9})
    curves.add(10, 80, {"a": 2.0, "later": 1234567.0})
    assert curves.csv() == "step,images,a,b,later\n5,40,0.333333,1e-09,\n10,80,2,,1.23457e+06\n"
    assert Curves.parse(curves.csv()).csv() == curves.csv()
    assert curves.last() == {"step": 10, "images": 80, "a": 2.0, "b": 1e-9, "later": 1234567.0}
    curves.write(tmp_path / "curves.csv")
    columns = read_curves(tmp_path / "curves.csv")
    assert columns["images"].tolist() == [40, 80]
    assert math.isnan(columns["later"][0])


def test_curves_that_cannot_be_read_are_an_error_in_words(tmp_path):
    with pytest.raises(LineamentError, match=r"missing\.csv: the curves cannot be read"):
        read_curves(tmp_path / "missing.csv")
    (tmp_path / "bad.csv").write_text("step,a\n1,x\n")
    with pytest.raises(LineamentError, match=r"bad\.csv"):
        read_curves(tmp_path / "bad.csv")


def test_the_drawing_has_the_size_asked_for_and_shows_something():
    curves = Curves()
    for step in range(5):
        curves.add(step, step * 8, {name: float(step) for name in "abcde"})
    picture = draw(curves, (500, 400))
    assert picture.shape == (400, 500, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert draw(Curves(), (100, 80)).shape == (80, 100, 3)
