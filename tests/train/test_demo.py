"""The demonstration, its figures and its table, in miniature."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mfp_neurons.train import demo, figures, network
from mfp_neurons.train.config import NetworkConfig, NeuronConfig, load

pytest.importorskip("matplotlib")


def test_the_demonstration_ends_with_table_figure_and_checkpoint(tmp_path: Path) -> None:
    text = demo.run(tmp_path, seeds=2, epochs=1, bars=False)
    rows = text.split("\n\n")[0].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == list(demo.NETWORKS.values())
    assert all("±" in row for row in rows)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "digits-mfp" / "seed0" / "best.safetensors").exists()
    assert str(tmp_path / "digits-mfp" / "seed0" / "best.safetensors") in text
    assert demo.run(tmp_path, seeds=1, epochs=1, bars=False) != text  # it starts anew


def test_the_three_networks_differ_in_neurons_and_weights_alone() -> None:
    configs = [load(name) for name in demo.NETWORKS]
    assert all(c.data == configs[0].data for c in configs)
    assert len({c.network.hidden for c in configs}) == 1
    budgets = {(c.training.epochs, c.training.batch_size, c.training.warmup) for c in configs}
    assert len(budgets) == 1


@pytest.mark.parametrize(("kind", "bits"), [("fir", 32), ("lif", 32), ("lif", 2), ("lif", 3)])
def test_what_is_drawn_is_the_potential_that_fires_and_the_codes_that_are_kept(kind: str, bits: int) -> None:
    neuron = NeuronConfig(kind=kind, potential_bits=bits, threshold=0.5)
    net = network.build(NetworkConfig(hidden=(12, 12), weight_bits=32, neuron=neuron), (6,), 4, 5).eval()
    layer = figures.last_layer(net, torch.randn(5, 3, 6) * 4)
    assert torch.equal(layer.spikes, (layer.potential >= 0.5).float())
    assert 0 < layer.spikes.mean() < 1
    assert (layer.stored is None) == (kind == "fir")
    if bits < 32:
        assert layer.stored is not None
        assert set(layer.stored.unique().tolist()) <= set(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
        assert len(layer.stored.unique()) > 2


def result(name: str, bits: float, accuracy: float, seed: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "label": f"label of {name}",
        "family": name[0],
        "state_bits": bits,
        "test_accuracy": accuracy,
        "readout_steps": 1 + seed,
    }


def test_the_figure_draws_every_family_with_its_own_marker() -> None:
    plt = figures.pyplot()
    figure, axes = plt.subplots()
    results = [
        result("a1", 0, 70.0),
        result("a2", 2, 80.0),
        result("b1", 32, 82.0),
        result("b1", 32, 84.0, seed=1),
    ]
    figures.draw_accuracy(axes, results)
    drawn = list(axes.containers)
    assert len(drawn) == 2
    markers = {container.lines[0].get_marker() for container in drawn}
    assert len(markers) == 2
    assert list(drawn[0].lines[0].get_xdata()) == [0, 2]
    assert list(drawn[1].lines[0].get_ydata()) == [83]
    plt.close(figure)
