import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import MFP, report
from mfp_neurons.pooling import TimePool


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_window_fires_where_one_of_its_steps_does(windows: int, window: int, seed: int) -> None:
    spikes = torch.rand(windows * window, 2, 3, generator=torch.Generator().manual_seed(seed)).round()
    pooled = TimePool(window)(spikes)
    expected = [
        [
            [float(any(spikes[i * window + j, n, c] for j in range(window))) for c in range(3)]
            for n in range(2)
        ]
        for i in range(windows)
    ]
    assert pooled.tolist() == expected


@pytest.mark.parametrize("window", [0, -1, 2.0, True, "2"])
def test_a_window_is_a_number_of_steps(window: object) -> None:
    with pytest.raises(ValueError, match="window must be an integer >= 1, got"):
        TimePool(window)  # type: ignore[arg-type]


def test_a_window_that_stays_open_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x_seq has 5 steps: give a multiple of window = 2"):
        TimePool(2)(torch.zeros(5, 1, 1))


def pooled_network(order: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4, bias=False),
        MFP(0.5, order=1),
        TimePool(3),
        nn.Linear(4, 5, bias=False),
        MFP(0.5, order=order),
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_the_report_counts_the_window_and_the_pooled_steps(batch: int) -> None:
    net = pooled_network(order=2)
    spikes = torch.ones(6, batch, 3)
    found = report(net, spikes)
    # a bit a neuron for the open window, K - 1 = 1 pooled spike of each: 4 + 4; none for the first layer
    assert found.state_bits == 8
    assert [row.state_bits_per_neuron for row in found.neurons] == [0, 2]
    assert [row.steps for row in found.neurons] == [6, 2]


def test_an_infinite_kernel_behind_a_window_looks_back_over_the_pooled_steps() -> None:
    net = nn.Sequential(nn.Linear(3, 4), MFP(0.5, order=1), TimePool(3), nn.Linear(4, 5), MFP(0.5))
    assert report(net, torch.ones(6, 1, 3)).neurons[1].state_bits_per_neuron == 2


def test_the_report_counts_the_synapses_of_pooled_steps_once_a_window() -> None:
    net = pooled_network(order=2)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):
                module.weight.fill_(1.0)
    found = report(net, torch.ones(6, 1, 3))
    second = found.synapses[1]
    assert second.synaptic_operations == 2 * 4 * 5  # two windows, four spikes, five synapses each
    assert second.streaming_synaptic_operations == (2 + 1) * 4 * 5  # the first window's spikes count twice
