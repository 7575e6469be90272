"""What the evidence says that a trained network costs."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.evidence import costs
from mfp_neurons import report
from mfp_neurons.train import config, deployment
from mfp_neurons.train.engine import BEST, Trainer, load_network
from tests.train.conftest import SMALL


@pytest.mark.parametrize(("name", "lowered"), [("digits-mfp", True), ("digits-lif-2bit", False)])
def test_bytes_are_those_of_the_integers_where_there_are_some(
    name: str, lowered: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    Trainer(config.load(name, SMALL), run, bars=False).run()
    measured = costs.of_run(run.with_suffix(".json"))
    assert measured.keys() == {"weight_bytes", "spikes", *costs.COUNTED}
    module, data, *_ = load_network(run / BEST)
    counted = report(module, data.sequence(data.test.samples[: costs.IMAGES]))
    assert measured["streaming_energy_joules"] == counted.streaming_energy_joules
    assert ("bytes as packed" in capsys.readouterr().out) != lowered
    if lowered:
        memory = deployment.lower_checkpoint(run / BEST).network.memory()
        assert measured["weight_bytes"] == memory.weights + memory.parameters
    else:
        assert measured["weight_bytes"] == counted.weight_bytes


def test_costs_are_measured_again_if_the_network_or_the_counting_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "counting").mkdir()
    network, source = tmp_path / "run" / BEST, tmp_path / "counting" / "prices.py"
    network.write_bytes(b"one")
    source.write_text("PRICE = 1")
    (tmp_path / "run" / "costs.json").write_text(json.dumps({"weight_bytes": 1}))  # of an earlier version
    numbers = iter(range(10))
    monkeypatch.setattr(costs, "COUNTING", (tmp_path / "counting",))
    monkeypatch.setattr(costs, "measure", lambda checkpoint: {"spikes": next(numbers)})
    result = tmp_path / "run.json"
    assert [costs.of_run(result)["spikes"] for _ in range(2)] == [0, 0]
    network.write_bytes(b"another")
    assert [costs.of_run(result)["spikes"] for _ in range(2)] == [1, 1]
    source.write_text("PRICE = 2")
    assert [costs.of_run(result)["spikes"] for _ in range(2)] == [2, 2]


def test_spikes_behind_a_pooling_over_time_are_those_of_its_own_steps(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**SMALL, "network.time_pool": [1, 2, 2]}
    Trainer(config.load("digits-mfp", settings), run, bars=False).run()
    module, data, *_ = load_network(run / BEST)
    fired = []
    for block in module.blocks():  # type: ignore[operator]
        block.neuron.register_forward_hook(lambda *args: fired.append(float(args[-1].sum())))
    samples = data.test.samples[: costs.IMAGES]
    with torch.no_grad():
        module(data.sequence(samples))
    assert costs.measure(run / BEST)["spikes"] == pytest.approx(sum(fired) / len(samples))
