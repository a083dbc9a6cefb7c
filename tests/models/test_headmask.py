import torch

from models.camera import intrinsics, pack_label, pose_on_sphere, project
from models.headmask import HeadMask
from tests.models.toy_people import toy_people


def label(*azimuths):
    angle = torch.tensor(azimuths)
    return pack_label(pose_on_sphere(angle, 0 * angle), intrinsics(2.0))


def test_the_head_is_inside_and_what_is_far_from_it_is_not():
    person = toy_people(3000)
    mask = HeadMask(person)
    identity, camera = torch.randn(2, 80, generator=torch.Generator().manual_seed(0)), label(0.0, 0.7)
    seen = mask(identity, camera, 64)
    assert seen.shape == (2, 1, 64, 64)
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    head = person.vertices(identity)[:, person.head_share > 0.5]
    at = (project(camera, head)[0] * 64).long().clamp(0, 63)
    for one, places in zip(seen[:, 0], at):
        assert one[places[:, 1], places[:, 0]].all()
        assert one.mean() < 0.98
        assert not one[0, 0]  # a ball leaves the corners free


def test_a_camera_that_looks_away_sees_no_head():
    away = label(0.0)
    away[:, 0], away[:, 2], away[:, 8], away[:, 10] = -away[:, 0], -away[:, 2], -away[:, 8], -away[:, 10]
    assert not HeadMask(toy_people())(torch.zeros(1, 80), away, 32).any()
