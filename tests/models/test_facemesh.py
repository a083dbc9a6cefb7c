"""FaceMesh as layers is the FaceMesh that the labels use, and gradients pass."""

import numpy as np
import pytest
import torch

from models.facemesh import SIDE, FaceMesh
from ops.perception.facemesh_layers import layers
from ops.perception.networks import constants, network
from ops.runtime.weights import require


def test_layers_answer_as_the_published_file_does(weights):
    picture = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    found = layers(weights)(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
    known = max(network("facemesh", weights)(picture), key=lambda output: output.size).reshape(-1, 3)
    assert np.abs(known).max() > 50  # pixels, not zeros
    np.testing.assert_allclose(found.numpy(), known, atol=5e-3)


def test_gradients_reach_the_picture_and_no_weight(weights):
    mesh = layers(weights)
    picture = torch.full((1, 3, SIDE, SIDE), 0.5, requires_grad=True)
    mesh.trunk(picture).square().sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().max() > 0
    assert all(p.grad is None for p in mesh.parameters())


def test_another_networks_weights_are_refused(weights):
    state = {name: torch.from_numpy(v) for name, v in constants(require("facemesh", weights)).items()}
    with pytest.raises(ValueError, match="depthwise_conv2d_9/Bias is missing"):
        FaceMesh.from_state({k: v for k, v in state.items() if k != "depthwise_conv2d_9/Bias"})
    state["conv2d_5/Kernel"] = state["conv2d_5/Kernel"][:3]
    with pytest.raises(ValueError, match="not FaceMesh weights"):
        FaceMesh.from_state(state)
    with pytest.raises(ValueError, match="192"):
        FaceMesh()(torch.zeros(1, 3, 64, 64))
