"""What cannot be read is refused by both exports in the same words: the module, its type, and what to use."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, QuantizedMembraneLIF, quantize_weights
from mfp_neurons.deploy import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.network import NetworkError, describe
from mfp_neurons.nir import NIRError, to_nir
from tests.deploy.lowering import Do, Each, events, neuron, norm, prepared


class Louder(MFP):
    def forward(self, x_seq):
        return 2 * super().forward(x_seq)


def conv(*arguments: Any, **options: Any) -> nn.Module:
    return Each(quantize_weights(nn.Conv2d(*arguments, **options)))


LAYERS: list[tuple[nn.Module, str, str]] = [
    (nn.LayerNorm(6), "LayerNorm", "BatchNorm"),
    (Each(nn.GroupNorm(2, 4)), "GroupNorm", "BatchNorm"),
    (Each(nn.InstanceNorm2d(4)), "InstanceNorm2d", "BatchNorm"),
    (Each(nn.BatchNorm2d(4, track_running_stats=False)), "BatchNorm2d", "fixed"),
    (Each(nn.Upsample(scale_factor=2, mode="bilinear")), "Upsample", "mode='nearest'"),
    (Each(nn.LocalResponseNorm(2)), "LocalResponseNorm", "BatchNorm"),
    (Do(lambda x: x.chunk(2, 0)[0]), "Do", "parts of time or of the batch"),
    (Do(lambda x: F.pad(x, (0,) * 8 + (1, 1))), "Do", "pads time or the batch"),
    (nn.ReLU(), "ReLU", "MFPNode"),
    (nn.ReLU(inplace=True), "ReLU", "MFPNode"),
    (nn.Sigmoid(), "Sigmoid", "MFPNode"),
    (nn.Softmax(-1), "Softmax", "without it"),
    (Do(lambda x: torch.maximum(x, x)), "Do", "torch.stack(steps).amax(0)"),
    (Do(torch.bernoulli), "Do", "Random numbers are drawn outside of the model"),
    (Do(lambda x: x.clamp(0, 1)), "Do", "encodes one, such as spikegen, can stay outside"),
    (Each(nn.MaxPool2d(2, return_indices=True)), "MaxPool2d", "return_indices"),
    (Each(nn.MaxPool2d((1, 2), 1, (0, 1), dilation=(1, 7))), "MaxPool2d", "dilation=1"),
    (Each(nn.LPPool2d(2, 2)), "LPPool2d", "max and average pools"),
    (Do(lambda x, r: r(x.flatten(2)), nn.LSTM(144, 4)), "LSTM", "order"),
    (Do(lambda x, a: a(x, x, x), nn.MultiheadAttention(6, 2)), "MultiheadAttention", "no softmax"),
    (nn.TransformerEncoderLayer(6, 2), "MultiheadAttention", "no softmax"),
    (Do(lambda x: (x > 0.5).float()), "Do", "MFP"),
    (Do(lambda x: x @ torch.ones(6, 6)), "Do", "Use a Linear module"),
    (Do(lambda x: x if x.any() else -x), "Do", "numbers of a tensor"),
    (Do(lambda x: x * x.item()), "Do", "numbers of a tensor"),
    (Do(lambda x: x.repeat(1, 1, 2, 1, 1)), "Do", "repeated, over time"),
    (Do(lambda x: x.mean()), "Do", "takes the mean over the batch"),
    (Do(lambda x: x + torch.zeros(3, 1, 1, 1, 1, 1)), "Do", "repeats numbers"),
    (Louder(), "Louder", "a module around it"),
    (QuantizedMembraneLIF(0.5), "QuantizedMembraneLIF", "convert"),
    (Do(lambda x: (x.flatten(2), x.add_(1))[0]), "Do", "Use add"),
    (Do(lambda x: torch.vmap(lambda y: y + 1)(x)), "Do", ""),
    (Do(lambda x: setattr(x, "data", x + 1) or x), "Do", "no layer of a network is"),
    (Do(lambda x: torch.fft.rfft(x).real), "Do", "no layer of a network is"),
]


@pytest.mark.parametrize(("layer", "kind", "instead"), LAYERS)
def test_a_layer_that_no_rule_reads_is_named_with_its_path_its_type_and_an_alternative(
    layer: nn.Module, kind: str, instead: str
) -> None:
    with pytest.raises(NetworkError) as caught:
        describe(nn.Sequential(nn.Identity(), nn.Sequential(layer)), events(4, 6, 6))
    for words in ("'1.0", f"({kind})", instead):
        assert words in str(caught.value)


FORWARDS: list[tuple[Callable[..., Any], str]] = [
    (lambda x, a, fire, out: {"scores": 3}, "returns a dict of 1, not tensors of scores"),
    (lambda x, a, fire, out: torch.zeros(3), "returns a Tensor"),
    (lambda x, a, fire, out: 3, "returns a int, not tensors of scores"),
    (lambda x, a, fire, out: fire(a(x)).transpose(1, 2), "returns [T, 12, N]"),
    (lambda x, a, fire, out: fire(a(x))[-2:], "x[-k:].mean(0)"),
    (lambda x, a, fire, out: fire(a(x))[1:3].mean(0), "takes some of the steps"),
    (lambda x, a, fire, out: fire(a(x)).mean(1), "takes the mean over the batch"),
    (lambda x, a, fire, out: fire(a(x)) - fire(a(x)).mean(), "takes the mean over the batch"),
    (lambda x, a, fire, out: fire(fire(a(x)).sum(1, keepdim=True)), "takes the sum over the batch"),
    (lambda x, a, fire, out: (out(fire(a(x))), 2 * fire(a(x)).mean()), "takes the mean over the batch"),
    (lambda x, a, fire, out: fire(a(x)).mean().item(), "may not depend on the numbers"),
    (lambda x, a, fire, out: out(fire(a(x))).max(0), "places of largest numbers"),
    (lambda x, a, fire, out: fire(a(x).max(0, keepdim=True)[1]), "places of largest numbers"),
    (lambda x, a, fire, out: x[0] + x[2], "adds step 0 of the input and step 2"),
    (lambda x, a, fire, out: x[2], "returns step 2 of 4"),
    (lambda x, a, fire, out: (x[-1] + x).mean(0), "adds tensors of different places or times"),
    (lambda x, a, fire, out: a(x).long(), "of numbers that are not whole"),
    (lambda x, a, fire, out: fire(a(x).transpose(0, 2)), "time first"),
    (lambda x, a, fire, out: fire(a(x).flatten(0, 1)), "Neurons take whole sequences"),
    (lambda x, a, fire, out: fire(a(x)[-2:]).mean(0), "behind the last neuron"),
    (lambda x, a, fire, out: F.linear(x, x[0]), "weight that is computed from the input"),
    (lambda x, a, fire, out: F.dropout(fire(a(x))).mean(0), "training=self.training"),
    (lambda x, a, fire, out: fire(a(x)).div(0), "divides by 0"),
    (lambda x, a, fire, out: a(x).long(), "of numbers that are not whole"),
]


@pytest.mark.parametrize(("forward", "words"), FORWARDS)
def test_a_forward_that_cannot_be_read_says_why(forward: Callable[..., Any], words: str) -> None:
    model = Do(forward, nn.Linear(20, 12), neuron(), nn.Linear(12, 3))
    with pytest.raises(NetworkError) as caught:
        describe(model, events(20).float())
    assert words in str(caught.value)


def looped(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    return torch.stack([b(a(step)) for step in x])


def test_a_shape_that_does_not_fit_is_said_of_the_reading_that_came_furthest() -> None:
    with pytest.raises(NetworkError) as caught:
        describe(Do(looped, nn.Linear(20, 12), nn.Linear(7, 3)), torch.zeros(4, 1, 20))
    assert "'layers.1' (Linear) calls linear on [2, 12]" in str(caught.value)
    assert "was read as [T, N, *], with a batch of at least 2, here [4, 2, 20]" in str(caught.value)


@pytest.mark.parametrize("batch", ["view(1, -1)", "view(2, -1)"])
def test_a_batch_size_that_the_code_holds_is_said(batch: str) -> None:
    size = int(batch[5])
    model = Do(lambda x, a: torch.stack([a(step.view(size, -1)) for step in x]), nn.Linear(20, 3))
    if size == 2:
        assert describe(model, torch.zeros(4, 2, 4, 5)).layers[-1].shape == (3,)
        return
    with pytest.raises(NetworkError, match=r"no number in the model's code may stand for the batch"):
        describe(model, torch.zeros(4, 1, 4, 5))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_traced_module_is_refused_with_what_to_lower() -> None:
    traced = torch.jit.trace(nn.Linear(20, 3), torch.zeros(4, 1, 20))
    with pytest.raises(NetworkError, match=r"compiled by torch.jit.*Lower the module it was made of"):
        describe(traced, torch.zeros(4, 1, 20))


def test_several_examples_are_refused_with_what_to_do() -> None:
    x = torch.zeros(4, 1, 20)
    with pytest.raises(TypeError, match=r"example must be a torch.Tensor, got .*has one input \(torch.cat"):
        describe(nn.Linear(20, 3), (x, x))


def test_a_second_input_is_refused_with_what_to_do() -> None:
    model = Do(lambda x, a: a(x), nn.Linear(20, 3))
    model.forward = lambda x, y: x + y
    with pytest.raises(NetworkError, match=r"missing 1 required.*'y'.*has one input.*torch.cat"):
        describe(model, torch.zeros(4, 1, 20))


@pytest.mark.parametrize("example", [torch.zeros(4, 1, 20).to_sparse(), torch.zeros(4, 1, 20, device="meta")])
def test_an_example_without_numbers_is_refused(example: Tensor) -> None:
    for use in (describe, lower_graph, to_nir):
        with pytest.raises(TypeError, match="example must be a dense tensor that holds numbers"):
            use(prepared(nn.Linear(20, 3)), example)


def test_what_a_model_takes_over_the_batch_for_its_log_is_left_out() -> None:
    kept = []

    def forward(x: Tensor, a: nn.Module, fire: nn.Module, out: nn.Module) -> Tensor:
        spikes = fire(a(x))
        kept.append((spikes.mean() + spikes.sum(1).mean()).detach() / 2)
        return out(spikes)

    parts = nn.Linear(20, 12), neuron(), nn.Linear(12, 3)
    plain = Do(lambda x, a, fire, out: out(fire(a(x))), *parts)
    names = [layer.kind for layer in describe(Do(forward, *parts), events(20).float()).layers]
    assert kept and names == [layer.kind for layer in describe(plain, events(20).float()).layers]


def raises(x: Tensor) -> Tensor:
    raise KeyError("nothing here")


@pytest.mark.parametrize(("export", "error"), [(lower_graph, LoweringError), (to_nir, NIRError)])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            prepared(nn.Sequential(Each(nn.Linear(7, 3)))),
            "'0.0' (QuantizedLinear) calls linear on [8, 4, 6, 6]",
        ),
        (Do(raises), "the model (Do) raised KeyError: 'nothing here'"),
        (
            Each(norm(nn.BatchNorm2d, 4), nn.Upsample(scale_factor=2, mode="bilinear")),
            "'1' (Upsample) interpolates with",
        ),
    ],
)
def test_an_export_refuses_in_the_words_of_the_reader_with_an_error_of_its_own(
    export: Callable[..., Any], error: type[Exception], model: nn.Module, words: str
) -> None:
    with pytest.raises(error) as caught:
        export(model, events(4, 6, 6).float())
    assert words in str(caught.value)
    with pytest.raises(NetworkError) as described:
        describe(model, events(4, 6, 6).float())
    assert str(caught.value) == str(described.value)


@pytest.mark.parametrize("export", [describe, lower_graph, to_nir])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, events(3)), TypeError, r"model must be a torch\.nn\.Module, got 3"),
        ((MFP(), [1]), TypeError, r"example must be a torch\.Tensor"),
        ((MFP(), torch.zeros(3)), ValueError, r"example must be \[T, N, \*\] or \[N, \*\]"),
        ((MFP(), torch.zeros(3, 0)), ValueError, "example .* none of them empty"),
    ],
)
def test_wrong_arguments_are_named(
    export: Callable[..., Any], arguments: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        export(*arguments)


def test_a_norm_of_spikingjelly_with_a_factor_for_each_step_says_what_to_do() -> None:
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    bn = layer.TemporalEffectiveBatchNorm2d(4, 4)
    describe(nn.Sequential(bn, neuron()), events(4, 6, 6))  # all of them 1
    with torch.no_grad():
        bn.scale.copy_(torch.arange(4.0))
    with pytest.raises(
        NetworkError, match="a number for each step, as TemporalEffectiveBatchNorm"
    ) as refusal:
        describe(nn.Sequential(bn, neuron()), events(4, 6, 6))
    advice = "norm.scale.data.fill_(norm.scale.mean()); norm.scale.requires_grad_(False)"
    assert f"({advice})" in str(refusal.value)
    exec(advice, {"norm": bn})
    describe(nn.Sequential(bn, neuron()), events(4, 6, 6))
