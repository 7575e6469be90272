"""snnTorch keeps every neuron ever made in one list; each test leaves it as it found it."""

from collections.abc import Iterator

import pytest

snn = pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")


@pytest.fixture(autouse=True)
def _instances_as_before() -> Iterator[None]:
    instances = snn.SpikingNeuron.instances
    before = len(instances)
    yield
    snn.SpikingNeuron.instances = instances
    del instances[before:]
