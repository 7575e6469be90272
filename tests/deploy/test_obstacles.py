"""All obstacles at once: what lowering would refuse one after the other."""

import re
from typing import Any

import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights

from .lowering import Do, Each, events
from .models import models

T, N = 4, 2


class Troubled(nn.Module):
    """One obstacle of every kind in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.fire1 = neuron.LIFNode(tau=2.0, step_mode="m")
        self.conv2, self.act = nn.Conv2d(4, 4, 3), nn.ReLU()
        self.fire2 = neuron.EIFNode(step_mode="m")
        self.fc, self.fire3 = nn.Linear(4 * 4 * 4, 5), MFP(0.9)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5).flatten(0, 1)
        x = self.fire1(self.norm1(self.conv1(x)).unflatten(0, (T, N)))
        x = self.fire2(self.act(self.conv2(x.flatten(0, 1))).unflatten(0, (T, N)))
        return self.fire3(self.fc(x.flatten(2))).softmax(-1).mean(0)


def test_all_obstacles_are_listed_with_module_reason_and_advice() -> None:
    result = deploy.check(Troubled(), torch.rand(T, N, 1, 6, 6))
    assert not result.ok and result.is_complete
    listed = [(one.where, one.reason.split(",")[0], one.advice) for one in result.obstacles]
    words = [
        ("'conv1' (Conv2d)", "has weights that are real numbers", "quantize_weights"),
        ("'conv2' (Conv2d)", "has weights that are real numbers", "quantize_weights"),
        ("'fc' (Linear)", "has weights that are real numbers", "quantize_weights"),
        ("'norm1' (GroupNorm)", "calls group_norm", "BatchNorm"),
        ("'act' (ReLU)", "calls relu", "spiking neuron"),
        ("'fire2' (EIFNode)", "keeps a membrane potential", "convert"),
        ("the model (Troubled)", "calls softmax", "Lower the model without it"),
        ("'fire3' (MFP)", "has real taps", "kernel_bits"),
    ]
    assert len(listed) == len(words), str(result)
    for (where, reason, advice), (wanted, why, what) in zip(listed, words, strict=True):
        assert where == wanted and reason.startswith(why) and what in advice, (where, reason, advice)
    lines = str(result).splitlines()
    assert lines[0] == "8 obstacles" and len(lines) == 9


def test_what_a_loop_repeats_at_every_step_is_listed_once() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm, self.lif = nn.Linear(8, 4), nn.LayerNorm(4), snn.Leaky(0.9)

        def forward(self, x: Tensor) -> Tensor:
            mem, record = self.lif.init_leaky(), []
            for step in x:
                spk, mem = self.lif(self.norm(self.fc(step)), mem)
                record.append(spk)
            return torch.stack(record)

    result = deploy.check(quantize_weights(Loop()), events(8))
    assert [one.where for one in result.obstacles] == ["'norm' (LayerNorm)", "'lif' (Leaky)"]
    assert deploy.check(quantize_weights(Loop()), events(8), kernel_bits=8).obstacles == result.obstacles[:1]


def test_what_ends_the_reading_is_said() -> None:
    model = nn.Sequential(MFP(0.5, order=3), nn.Embedding(3, 4), nn.LayerNorm(4))
    result = deploy.check(model, events(8))
    assert not result.is_complete
    assert str(result).endswith("what comes behind the last of them could not be read yet")


def test_an_example_of_another_shape_is_said_of_the_layer_that_it_does_not_fit() -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.Linear(7, 4), neuron.LIFNode(step_mode="m"))
    (obstacle,) = deploy.check(quantize_weights(model), events(8)).obstacles
    assert obstacle.where == "'1' (QuantizedLinear)" and "read as [T, N, *]" in obstacle.advice


def test_a_model_is_checked_after_a_step_of_training() -> None:
    model = nn.Sequential(nn.Linear(8, 4), neuron.LIFNode(step_mode="m", store_v_seq=True), nn.Linear(4, 2))
    model(events(8).float()).sum().backward()
    held = model[1].v
    assert [one.where for one in deploy.check(model, events(8)).obstacles] == ["'0' (Linear)", "'2' (Linear)"]
    assert model[1].v is held


def test_layers_that_cannot_be_quantized_are_listed_with_the_others() -> None:
    pruned = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(nn.Linear(8, 4), pruned, normed, nn.ReLU(), nn.TransformerEncoderLayer(4, 2))
    result = deploy.check(model, events(8))
    listed = [(one.where, one.reason.split(":")[0]) for one in result.obstacles]
    assert listed[:4] == [
        (
            "'0' (Linear)",
            "has weights that are real numbers, where integer hardware has codes of 1 to 8 bits",
        ),
        ("'1' (Linear)", "cannot be quantized"),
        ("'2' (ParametrizedLinear)", "cannot be quantized"),
        ("'3' (ReLU)", "calls relu, which no layer of a network is"),
    ]
    assert "MultiheadAttention" in listed[4][0] and len(listed) == 5


class Steps(nn.Module):
    """A loop over time around layers that take one step."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layers(step) for step in x])


def fire(**options: Any) -> MFP:
    return MFP(0.5, **{"order": 3, "kernel_bits": "pow2"} | options)


def real(**options: Any) -> MFP:
    """Taps that are no whole numbers times a power of two."""
    return MFP(0.9, order=3, **options)


NORM, REAL = "calls .*norm", "has real taps"
SEVERAL: dict[str, tuple[nn.Module, tuple[int, ...], list[tuple[str, str]]]] = {
    "in a row": (
        nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), real(), nn.Linear(6, 3), nn.Softmax(-1)),
        (4,),
        [("'1' (LayerNorm)", NORM), ("'4' (Softmax)", "calls softmax"), ("'2' (MFP)", REAL)],
    ),
    "behind another shape": (
        nn.Sequential(
            Each(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), nn.ReLU(), Each(nn.ConvTranspose2d(4, 2, 2)), real()
        ),
        (2, 6, 6),
        [
            ("'0.1' (GroupNorm)", NORM),
            ("'1' (ReLU)", "calls relu"),
            ("'3' (MFP)", REAL),
        ],
    ),
    "in a loop over time": (
        Steps(
            nn.Linear(4, 6),
            snn.Leaky(0.9, init_hidden=True),
            nn.Tanh(),
            snn.Synaptic(0.9, 0.8, init_hidden=True),
        ),
        (4,),
        [
            ("'layers.2' (Tanh)", "calls tanh"),
            ("'layers.3' (Synaptic)", "keeps a membrane potential"),
            ("'layers.1' (Leaky)", REAL),
        ],
    ),
    "neurons": (
        nn.Sequential(
            neuron.EIFNode(step_mode="m"),
            nn.LayerNorm(4),
            neuron.IzhikevichNode(step_mode="m"),
            nn.Linear(4, 2),
        ),
        (4,),
        [
            ("'0' (EIFNode)", "keeps a membrane"),
            ("'1' (LayerNorm)", NORM),
            ("'2' (IzhikevichNode)", "keeps a membrane"),
        ],
    ),
    "functions of the model itself": (
        Do(
            lambda x, a, f, b: b(f(a(x)) * 2).mean(0).clamp(0, 1).softmax(-1),
            nn.Linear(4, 5),
            real(),
            nn.Linear(5, 3),
        ),
        (4,),
        [("the model (Do)", "calls clamp"), ("the model (Do)", "calls softmax"), ("'layers.1' (MFP)", REAL)],
    ),
    "sums over the steps so far": (
        Do(lambda x, a, b: b(torch.sigmoid(a(x))).cumsum(0), nn.Linear(4, 5), nn.Linear(5, 3)),
        (4,),
        [("the model (Do)", "calls sigmoid"), ("the model (Do)", "adds up the steps so far")],
    ),
    "a recurrence": (
        nn.Sequential(
            layer.LinearRecurrentContainer(
                nn.Sequential(nn.Linear(4, 4), neuron.IFNode()), 4, 4, step_mode="m"
            ),
            nn.Linear(4, 3),
            real(),
        ),
        (4,),
        [("'0' (LinearRecurrentContainer)", "feeds the output of Sequential back"), ("'2' (MFP)", REAL)],
    ),
    "some of the steps": (
        Do(lambda x, a, f: f(a(x))[1:3].mean(0), nn.Linear(4, 4), real()),
        (4,),
        [("the model (Do)", "takes single steps"), ("'layers.1' (MFP)", REAL)],
    ),
    "several heads": (
        Do(lambda x, a, f, g: (f(a(x)), g(a(x)).abs(), (a(x) > 0).float()), nn.Linear(4, 4), real(), fire()),
        (4,),
        [("the model (Do)", "calls abs"), ("the model (Do)", "calls gt"), ("'layers.1' (MFP)", REAL)],
    ),
    "a norm without statistics": (
        nn.Sequential(
            Each(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), real(), nn.Sigmoid()
        ),
        (2, 6, 6),
        [
            ("'0.1' (BatchNorm2d)", "normalizes with the statistics of its input"),
            ("'2' (Sigmoid)", "calls sigmoid"),
            ("'1' (MFP)", REAL),
        ],
    ),
    "a product": (
        Do(lambda x, a, f: f(a(x * x.mean(0))), nn.Linear(4, 4), real()),
        (4,),
        [("the model (Do)", "multiplies tensors of different places or times"), ("'layers.1' (MFP)", REAL)],
    ),
}


@pytest.mark.parametrize(("model", "features", "expected"), SEVERAL.values(), ids=SEVERAL.keys())
def test_each_of_several_obstacles_is_listed_and_no_other(model, features, expected) -> None:
    model, x = quantize_weights(model).eval(), torch.rand(T, N, *features)
    result = deploy.check(model, x)
    assert [one.where for one in result.obstacles] == [where for where, _ in expected], str(result)
    for one, (_, reason) in zip(result.obstacles, expected, strict=True):
        assert re.match(reason, one.reason) and one.advice, str(one)
    with pytest.raises(deploy.LoweringError, match=r"deploy\.check\(model, example\) lists all"):
        deploy.lower(model, x)


def test_a_float_model_that_only_lacks_codes_has_no_other_obstacle() -> None:
    model = nn.Sequential(nn.Linear(8, 4), MFP(0.5, order=3))
    result = deploy.check(model, events(8))
    assert [one.where for one in result.obstacles] == ["'0' (Linear)"]
    assert not any("weight_step" in name for name, _ in model.named_parameters())
    assert str(deploy.check(quantize_weights(model), events(8))) == "the model can be lowered"


class Standardized(nn.Linear):
    """A layer that standardizes its weight before it uses it."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)


def test_a_layer_that_cannot_be_quantized_is_listed_once_and_the_rest_is_checked() -> None:
    model = nn.Sequential(Standardized(8, 4), MFP(0.5), nn.LayerNorm(4), MFP(0.5), nn.Linear(4, 2))
    first, *others = deploy.check(model, torch.zeros(4, 1, 8)).obstacles
    assert first.where == "'0' (Standardized)" and first.reason.startswith(
        "cannot be quantized: Standardized uses"
    )
    assert "skip" not in first.reason
    assert [one.where for one in others] == ["'4' (Linear)", "'2' (LayerNorm)"]


def test_a_loop_outside_is_checked_with_its_number_of_steps() -> None:
    model, x = (
        quantize_weights(nn.Sequential(nn.Linear(8, 4), snn.Leaky(0.5, init_hidden=True))),
        events(8)[0],
    )
    assert deploy.check(model, x, steps=5).ok
    assert "steps=T" in deploy.check(model, x).obstacles[0].advice
    with pytest.raises(ValueError, match="steps must be"):
        deploy.check(model, x, steps=0)


def test_means_of_channels_tell_which_dimension_is_time() -> None:
    model = quantize_weights(nn.Sequential(nn.Flatten(2), nn.Linear(12, 4), nn.ReLU(), fire()))
    x = torch.rand(T, 1, 3, 2, 2)
    result = deploy.check(model, x, mean=[0.1, 0.2, 0.3])
    assert [one.where for one in result.obstacles] == ["'2' (ReLU)"]


@settings(max_examples=30, deadline=None)
@given(models())
def test_a_model_that_lowers_has_no_obstacles(case) -> None:
    assert deploy.check(case.model, case.example, **case.options).ok
