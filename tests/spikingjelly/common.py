"""What the tests of the SpikingJelly adapter share: the two versions, kernels, and ways to copy a module."""

import copy
import io
import pickle

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

V2 = hasattr(neuron.BaseNode, "single_step_functional_forward")
only_v2 = pytest.mark.skipif(not V2, reason="came with 2.0.0")
both_modes = pytest.mark.parametrize("step_mode", ["s", "m"])


def parametrized(kernels: dict[str, dict]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", kernels.values(), ids=kernels.keys())


def saved(module: nn.Module) -> nn.Module:
    torch.save(module, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "save": saved,
}
