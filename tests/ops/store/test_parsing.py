import numpy as np

from ops.store.parsing import CLASSES, coloured, palette


def test_every_class_has_a_colour_of_its_own():
    colours = palette().astype(int)
    assert len(CLASSES) == len(set(CLASSES)) == len(colours) == 19
    gaps = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(19, dtype=int)
    assert gaps.min() > 30


def test_a_map_of_classes_is_coloured_pixel_by_pixel():
    classes = np.array([[0, 13], [18, 1]], np.uint8)
    picture = coloured(classes)
    assert picture.shape == (2, 2, 3)
    assert picture.dtype == np.uint8
    assert (picture[0, 0] == 0).all()
    assert (picture[1, 0] == palette()[18]).all()
