"""The frameworks' own exporters refuse our neurons, with words; none writes a neuron that resets."""

from collections.abc import Callable
from typing import Any

import nir
import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP

WORDS = r"mfp_neurons\.nir\.to_nir\(model, example\)"


def neurons() -> list[Any]:
    try:
        from mfp_neurons import MFPNode
        from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
    except ImportError:
        return [MFP()]
    per_neuron = {"beta": torch.full((3,), 0.9), "threshold": torch.ones(3), "init_hidden": True}
    leaky = [
        MFPLeaky(**per_neuron, reset_mechanism="none"),
        MFPLeakyParallel(0.9, init_hidden=True, reset_mechanism="none"),
    ]
    return [MFP(), MFPNode(reset=None), MFPNode(step_mode="m", reset=None), *leaky]


EXPORTERS: dict[str, Callable[[Any, nn.Module, Tensor], Any]] = {
    "spikingjelly.activation_based.nir_exchange": lambda tool, model, x: tool.export_to_nir(model, x),
    "snntorch.export_nir": lambda tool, model, x: tool.export_to_nir(model, x, ignore_dims=[0]),
    "norse.torch": lambda tool, model, x: tool.to_nir(model, x),
    "nirtorch": lambda tool, model, x: tool.torch_to_nir(model, {}),
}


@pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning")
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    "neuron", neurons(), ids=lambda one: type(one).__name__ + getattr(one, "step_mode", "")
)
def test_another_exporter_says_what_to_use_instead(exporter: str, neuron: nn.Module) -> None:
    tool = pytest.importorskip(exporter)
    x = torch.rand(2, 4) if getattr(neuron, "step_mode", "s") == "s" else torch.rand(5, 2, 4)
    with pytest.raises(TypeError, match=WORDS):
        EXPORTERS[exporter](tool, nn.Sequential(nn.Linear(4, 3), neuron), x)


def test_snntorch_would_have_written_a_neuron_that_resets() -> None:
    """Why they refuse. When this no longer holds, the refusal of its tracer can go."""
    snn_export = pytest.importorskip("snntorch.export_nir")
    from mfp_neurons.snntorch import MFPLeaky

    node = snn_export._extract_snntorch_module(
        MFPLeaky(torch.full((3,), 0.9), threshold=torch.ones(3), reset_mechanism="none")
    )
    assert isinstance(node, nir.LIF)


def test_neurons_run_as_ever_outside_of_exporters() -> None:
    assert MFP(0.5)(torch.ones(3, 1)).sum() == 3
    compiled = torch.compile(MFP(0.5), fullgraph=True, backend="eager")
    assert compiled(torch.ones(3, 1)).sum() == 3
