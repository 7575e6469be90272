"""The page of published networks says what happens today."""

import json

import pytest

pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")
from spikingjelly.activation_based import neuron

if not hasattr(neuron.BaseNode, "single_step_functional_forward"):
    pytest.skip("the page is of SpikingJelly 2.0.0", allow_module_level=True)
from benchmarks import published, published_table

EACH = [
    pytest.param(group, network, id=network.name, marks=[pytest.mark.slow] if network.is_large else [])
    for group, networks in published.NETWORKS.items()
    for network in networks
]
RESULTS = json.loads(published_table.RESULTS.read_text())


@pytest.mark.parametrize(("group", "network"), EACH)
def test_a_published_network_lowers_or_is_refused_as_the_page_says(group, network):
    (written,) = (one for one in RESULTS[group] if one["name"] == network.name)
    today = published_table.row(network)
    for one in (written := dict(written), today):
        for measured in ("seconds", "largest_difference"):  # which another machine need not repeat
            one.pop(measured, None)
    assert today == written


def test_the_page_shows_the_results_of_every_network():
    page = published_table.PAGE.read_text()
    for group, networks in published.NETWORKS.items():
        assert [one["name"] for one in RESULTS[group]] == [one.name for one in networks]
        assert published_table.table(RESULTS[group]) in page
    assert published_table.summary(RESULTS) in page


def test_what_lowers_agrees_on_every_input():
    """Where no bound is stated, to the last spike; else but for spikes that the bound leaves open."""
    rows = [one for group in RESULTS.values() for one in group if one["lowers"]]
    assert rows
    for one in rows:
        assert one["agrees"] + one["agrees_within_bound"] == one["of"], one
        assert one["bound"] or not one["agrees_within_bound"], one


def test_a_network_of_50_layers_lowers_in_less_than_a_minute():
    deep = [one for group in RESULTS.values() for one in group if "resnet50" in one["name"]]
    assert deep and all(one["seconds"] < 60 for one in deep)
