"""Numbers that are not finite are named by module and parameter; an infinite threshold is computed with."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mfp_neurons import MFP, deploy
from mfp_neurons.deploy import LoweringError
from mfp_neurons.nir import NIRError, from_nir, to_nir
from tests.deploy.lowering import Do, Each, norm, prepared

X = (torch.arange(4 * 2 * 6).reshape(4, 2, 6) % 3 == 0).float()


def network(bits: float = 1) -> nn.Module:
    fire = MFP(kernel="fir", order=2, num_channels=5, learn_threshold=True, v_threshold=0.3, kernel_bits=4)
    layers = Each(nn.Linear(6, 5), norm(nn.BatchNorm1d, 5)), fire, nn.Linear(5, 3)
    return prepared(nn.Sequential(*layers), bits).eval()


def check_refused(model: nn.Module, words: str) -> None:
    for export, error in ((deploy.lower, LoweringError), (to_nir, NIRError)):
        with pytest.raises(error, match=words):
            export(model, X)


@pytest.mark.parametrize("bits", [1, 1.58, 4])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("0.0", "weight", "QuantizedLinear"),
        ("2", "weight", "QuantizedLinear"),
        ("2", "bias", "QuantizedLinear"),
        ("0.1", "running_mean", "BatchNorm1d"),
        ("0.1", "running_var", "BatchNorm1d"),
        ("0.1", "weight", "BatchNorm1d"),
        ("1", "kernel.taps", "MFP"),
    ],
)
def test_a_number_that_is_not_finite_is_named(
    path: str, name: str, kind: str, number: float, bits: float
) -> None:
    model = network(bits)
    owner: Any = model.get_submodule(path)
    *inner, last = name.split(".")
    tensor = getattr(owner.get_submodule(".".join(inner)), last)
    with torch.no_grad():
        tensor.view(-1)[1] = number
    words = rf"'{path}' \({kind}\) has {number} in {name}, in 1 of {tensor.numel()} places"
    check_refused(model, words)


@pytest.mark.parametrize("number", [math.nan, -math.inf])
@pytest.mark.parametrize("learned", [False, True])
def test_a_threshold_that_is_no_number_is_named(learned: bool, number: float) -> None:
    model = network()
    row = torch.full((5,), number)
    del model[1].v_threshold
    model[1].v_threshold = nn.Parameter(row) if learned else row
    words = rf"'1' \(MFP\) has ({number} in v_threshold|a threshold that is NaN or -inf)"
    check_refused(model, words)


def test_constants_that_are_not_finite_are_refused() -> None:
    model = prepared(Do(lambda x, a: a(x) * math.nan, nn.Linear(6, 3)))
    check_refused(model, r"computes with nan\. Numbers must be finite")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("shape", ["one", "a channel"])
def test_an_infinite_threshold_is_never_reached(strict: bool, shape: str) -> None:
    """Some channels of the batch norm are worth nothing, so that a potential may be 0 for ever."""
    model = network()
    with torch.no_grad():
        model[0][1].weight[0] = 0
    other = torch.tensor([math.inf, math.inf, 0.3, math.inf, math.inf])
    del model[1].v_threshold
    model[1].v_threshold = math.inf if shape == "one" else nn.Parameter(other)
    model[1].strict = strict
    spikes = model[:2]
    with torch.no_grad():
        expected = torch.zeros(4, 2, 5)
        if shape == "a channel":  # the one of a finite threshold fires
            current, taps = spikes[0](X)[..., 2], spikes[1].kernel().taps[:, 2]
            potential = taps[0] * current
            potential[1:] += taps[1] * current[:-1]
            expected[..., 2] = (potential >= 0.3).float()
        lowered = deploy.lower(spikes, X)
        np.testing.assert_array_equal(lowered.run(X), expected.numpy())
        node = to_nir(spikes, X).nodes["1"]
        assert np.isinf(node.threshold[other.isinf().numpy()]).all()
        torch.testing.assert_close(from_nir(to_nir(spikes, X))(X), expected)
