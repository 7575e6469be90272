"""A trained Spikformer gives the scores of its model as integers, and both are timed beside each other."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
from spikingjelly.activation_based import functional, neuron

if not hasattr(neuron.BaseNode, "single_step_functional_forward"):
    pytest.skip("the Spikformer is of SpikingJelly 2.0.0", allow_module_level=True)
from benchmarks import spikformer
from benchmarks.speed.timing import Effort
from mfp_neurons.quantize import materialize
from mfp_neurons.train.deployment import lower_checkpoint
from tests.deploy.toolchain import tool
from tests.train.conftest import write_fashion_mnist

# many steps, of few images each, so that batch norms have their statistics and neurons fire
SMALL = {
    "training.epochs": 1,
    "training.batch_size": 2,
    "data.limit": 180,
    "data.validation": 20,
    "network.options.embed_dims": 16,
    "network.options.num_heads": 2,
    "network.options.depths": 1,
}


@pytest.fixture(scope="module", params=[{}, {"network.options.reset": "keep"}], ids=["memory-free", "resets"])
def run(request, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("spikformer")
    torch.manual_seed(0)
    write_fashion_mnist(folder / "FashionMNIST" / "raw", zipped=True, count=200)
    tool("gcc")
    return folder, spikformer.lowered(folder, str(folder), SMALL | request.param)


def test_a_trained_spikformer_gives_the_scores_of_its_model_in_float64(run):
    _, result = run
    assert result["same_scores_as_float64"] == result["same_classes_as_float64"] == 100
    assert result["test_images"] == 100 and result["images_in_c"] == spikformer.IN_C
    assert result["bytes_in_c"]["weight_bytes"] >= result["bytes_of_weights"]
    (factors,) = (rate for name, rate in result["firing_rates"].items() if name.endswith("qkv_lif"))
    assert 0 < factors < 1  # so that the products of attention are not all 0
    assert "as integers" in spikformer.score_table(json.loads(json.dumps(result)))


def test_a_spikformer_is_timed_beside_its_model(run, monkeypatch):
    folder, _ = run
    monkeypatch.setattr(spikformer, "EFFORT", Effort(repeats=2, seconds=1.0, least=2, warm_up=1))
    monkeypatch.setattr(spikformer, "BATCHES", (1,))
    monkeypatch.setattr(torch, "compile", lambda net, **_: net)
    rows = spikformer.timed(folder, str(folder))
    assert not rows["1"]["skipped"]
    whos = [spikformer.INTEGERS, spikformer.EAGER, spikformer.COMPILED, spikformer.LIF]
    assert list(rows["1"]["entries"]) == whos
    assert spikformer.EAGER in spikformer.speed_table({"by_images": rows})


def test_with_its_resets_kept_it_is_the_published_network(run):
    folder, result = run
    deployed = lower_checkpoint(folder / "best.safetensors", str(folder))
    net = materialize(deployed.model).get_submodule("network.network")
    x = deployed.data.sequence(deployed.data.test.samples)
    with torch.no_grad():
        scores, published = net(x), spikformer.with_lifs(net, deployed.data)(x)
    functional.reset_net(net)
    keeps = result["config"]["network"]["options"].get("reset") == "keep"
    assert torch.allclose(scores, published, rtol=1e-4, atol=1e-5) == keeps


def test_the_page_shows_the_results():
    results, page = json.loads(spikformer.RESULTS.read_text()), spikformer.PAGE.read_text()
    assert spikformer.score_table(results["scores"]) in page
    assert spikformer.speed_table(results["speed"]) in page
    assert results["scores"]["same_scores_as_float64"] == results["scores"]["test_images"] == 10_000
