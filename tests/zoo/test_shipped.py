"""Every network in the package is what its card says, reaches it, and comes from its config."""

import os
import re
from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmarks.zoo import training
from mfp_neurons import zoo
from mfp_neurons.deploy import LoweringError
from mfp_neurons.quantize import codes, is_quantized, materialize
from mfp_neurons.train.config import ConfigError, from_dict
from mfp_neurons.train.data import Data, Split
from mfp_neurons.zoo import catalog, evaluation, packed
from mfp_neurons.zoo.cards import SAMPLE

SHIPPED = zoo.list()
MOST_BYTES = 3_000_000  # of all networks together; 1.87 MB are the 13 million weights of one at full size
load = cache(zoo.load)  # no test changes a network

each = pytest.mark.parametrize("name", SHIPPED)


def test_there_are_networks_and_they_are_small() -> None:
    assert SHIPPED
    sizes = [path.stat().st_size for path in catalog.NETWORKS.iterdir()]
    assert sum(sizes) <= MOST_BYTES
    assert len(sizes) == 2 * len(SHIPPED)  # a network and its card, nothing else


def images_of(trained: catalog.Trained) -> Data:
    """The card's choice of the test set; where that is not installed the test skips, or fails in CI."""
    try:
        return evaluation.load_test(trained, None, SAMPLE)
    except ConfigError as error:
        if os.environ.get("MFP_REQUIRE_TOOLS") == "1":
            raise
        pytest.skip(str(error))


@each
def test_it_reaches_its_card_on_test_images(name: str) -> None:
    trained = load(name)
    data = images_of(trained)
    said = trained.card.accuracy_sample
    assert len(data.test) == said.images
    execution = "torch" if trained.card.refused else "integer"  # integers take a fraction of the time
    right = evaluation.right_answers(trained, data, execution)
    assert evaluation.percent(right) == pytest.approx(getattr(said, execution), abs=evaluation.TOLERANCE)
    few = replace(data, test=Split(data.test.samples[:50], data.test.labels[:50]))
    in_torch = evaluation.right_answers(trained, few, "torch")
    assert int((in_torch != right[:50]).sum()) <= 1  # float32 may round a potential over its threshold


@each
def test_its_card_tells_everything_and_its_config_trains_it(name: str) -> None:
    card = zoo.card(name)
    assert card.name == name
    assert len(card.summary) > 40
    assert card.accuracy.images >= card.accuracy_sample.images > 0
    assert (card.accuracy.integer is None) == (card.refused is not None)
    assert card.trained_on and card.by and card.seconds > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", card.date)
    assert re.match("[0-9a-f]{40}", card.commit or "")
    assert card.versions["torch"]
    assert all(line in str(card) for line in (card.sha256, card.date, f"seed {card.seed}"))
    config = training.config(name)
    assert training.same_training(from_dict(card.config), config)
    elsewhere = replace(config, training=replace(config.training, device="cuda", threads=8))
    assert training.same_training(config, elsewhere)
    longer = replace(config, training=replace(config.training, epochs=config.training.epochs + 1))
    assert not training.same_training(config, longer)


# a card gets its original when that has been trained, for hours on a CPU; then its name goes out of here
ORIGINAL_NOT_TRAINED = {
    "fashion-mnist-events-net-16ch",
    "fashion-mnist-net",
    "mfp-qsnn-resnet19-16ch",
    "snntorch-csnn",
    "snntorch-fcn",
}


@each
def test_its_original_is_trained_alike_and_on_its_card(name: str) -> None:
    card = zoo.card(name)
    original = card.original
    assert (original is None) == (name in ORIGINAL_NOT_TRAINED)
    if original is None:
        return
    assert training.same_training(from_dict(original.config), training.config(name, original=True))
    assert original.epochs == card.epochs
    assert original.config["data"]["name"] == card.dataset
    assert original.state_bits_per_neuron == 32
    assert 0 < original.accuracy < 100 and original.seconds > 0
    assert f"{original.neuron} and float weights, trained alike" in str(card)


@each
def test_its_bytes_and_its_refusal_are_those_on_the_card(name: str) -> None:
    trained = load(name)
    assert (catalog.NETWORKS / f"{name}{catalog.WEIGHTS}").stat().st_size == trained.card.file_bytes
    assert trained.refused == trained.card.refused
    if trained.card.refused is None:
        assert training.integer_bytes(trained) == trained.card.integer_bytes
    else:
        with pytest.raises(LoweringError):
            _ = trained.network


@each
def test_packing_it_again_gives_the_same_codes_and_scores(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trained = load(name)
    path = tmp_path_factory.mktemp("again") / "net.safetensors"
    packed.save(path, trained.model.network, trained.facts)  # type: ignore[arg-type]
    again, _ = packed.load(path)
    for one, other in zip(trained.model.network.modules(), again.modules(), strict=True):  # type: ignore[union-attr]
        if is_quantized(one):
            assert torch.equal(codes(one).codes, codes(other).codes)
            assert torch.equal(codes(one).scale, codes(other).scale)
    facts = trained.facts
    x = (torch.rand(facts.time_steps, 2, *facts.features) < 0.3).float()
    with torch.no_grad():
        assert torch.equal(trained.model.network(x), again(x))  # type: ignore[operator]


@each
def test_torch_and_integers_give_the_same_scores(name: str) -> None:
    trained = load(name)
    if trained.card.refused is not None:
        pytest.skip(f"not lowered: {trained.card.refused}")
    facts = trained.facts
    x = (torch.rand(facts.time_steps, 2, *facts.features) < 0.3).float()
    # snnTorch's neurons send float32 whatever they receive
    dtype = torch.float32 if "snntorch" in trained.card.config["network"]["architecture"] else torch.float64
    with torch.no_grad():
        expected = materialize(trained.model).to(dtype)(x.to(dtype)).numpy()
    assert trained.network.run(x.bool() if facts.scale == 1 else x) == pytest.approx(expected, abs=1e-5)


def test_unknown_names_are_answered_with_those_there_are() -> None:
    for ask in (zoo.load, zoo.card):
        with pytest.raises(ValueError, match=f"no network 'nonsense'; it has .*{SHIPPED[0]}"):
            ask("nonsense")
    with pytest.raises(ConfigError, match=f"no config 'nonsense'; it has .*{SHIPPED[0]}"):
        training.config("nonsense")
    with pytest.raises(AttributeError, match="nonsense"):
        zoo.nonsense  # noqa: B018
