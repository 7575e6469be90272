"""The rivals compute what their equations say, look at no later step, and cost what a count by hand gives."""

import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from benchmarks import sweep
from benchmarks.evidence import costs, rivals
from benchmarks.evidence.__main__ import HERE, TASKS
from benchmarks.evidence.rivals.codes import ReLUCodes, round_to_codes
from benchmarks.evidence.rivals.convolution import CausalLayer
from benchmarks.evidence.rivals.gated import ByteGRU
from benchmarks.evidence.rivals.spiking import AdaptiveLIF, RecurrentLIF
from mfp_neurons import quantize_weights, report
from mfp_neurons.baseline import QuantizedMembraneLIF
from mfp_neurons.quantize import codes
from mfp_neurons.train import config, network
from mfp_neurons.train.engine import Trainer

FEATURES, CLASSES, STEPS = (1, 3), 2, 5
OF = "benchmarks.evidence.rivals:"


def built(rival: str, bits: float, options: dict[str, Any], steps: int = STEPS, **settings: Any) -> nn.Module:
    """A rival as a config asks for it, in eval mode."""
    neuron = {"kind": "lif"} if rival.endswith("lif") else {}
    table = {"architecture": OF + rival, "options": options, "weight_bits": bits, "neuron": neuron} | settings
    torch.manual_seed(0)
    model = network.build(config.from_dict({"network": table}).network, FEATURES, CLASSES, steps)
    return without_zeros(model).eval()


def without_zeros(model: nn.Module) -> nn.Module:
    """The network with weights between 1/2 and 1, of both signs, no code of which is zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                signs = torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0)
                parameter.copy_(signs * (0.5 + torch.rand_like(parameter) / 2))
    return model


CAUSAL = {
    "alif": ("alif", 1, {"hidden": [4, 4]}),
    "alif of 4 bits": ("alif", 1, {"hidden": [4]}, {"neuron": {"kind": "lif", "potential_bits": 4}}),
    "recurrent": ("recurrent_lif", 1, {"hidden": [4, 4]}),
    "GRU": ("gru", 32, {"width": 4, "layers": 2}),
    "GRU of bytes": ("gru", 8, {"width": 4, "layers": 2, "bits": 8}),
    "convolution": ("conv", 32, {"width": 4}),
    "convolution of bytes": ("conv", 8, {"width": 4, "layers": 2, "bits": 8}),
}

GRADED = [name for name in CAUSAL if "GRU" in name or "convolution" in name]


def causal_networks() -> dict[str, nn.Module]:
    return {
        name: built(rival, bits, options, **(more[0] if more else {}))
        for name, (rival, bits, options, *more) in CAUSAL.items()
    }


@pytest.mark.parametrize("name", CAUSAL)
def test_a_score_depends_on_its_own_and_earlier_steps_alone(name: str) -> None:
    model = causal_networks()[name]
    x = torch.rand(STEPS, 3, *FEATURES) * 4
    for step in range(1, STEPS):
        changed = x.clone()
        changed[step:] = torch.rand(STEPS - step, 3, *FEATURES) * 4
        before, after = model(x), model(changed)
        assert before.shape == (STEPS, 3, CLASSES)
        torch.testing.assert_close(before[:step], after[:step])


@pytest.mark.parametrize("name", CAUSAL)
def test_all_parameters_get_a_gradient(name: str) -> None:
    model = causal_networks()[name].train()
    model(torch.rand(STEPS, 8, *FEATURES) * 4).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", GRADED)
def test_scores_in_bfloat16_are_nearly_the_same(name: str) -> None:
    model = causal_networks()[name]
    x = torch.rand(STEPS, 8, *FEATURES)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(x)
        scores.float().sum().backward()
    torch.testing.assert_close(scores.float(), model(x), atol=0.1, rtol=0.1)


def test_neurons_keep_float32_under_autocast() -> None:
    x = torch.randn(9, 4, 3)
    for neuron in (AdaptiveLIF(3, bits=8), AdaptiveLIF(3)):
        with torch.autocast("cpu", torch.bfloat16):
            spikes = neuron(x.bfloat16())
        assert spikes.dtype == torch.bfloat16
        assert torch.equal(spikes.float(), neuron(x.bfloat16().float()))


@pytest.mark.parametrize("name", GRADED)
def test_the_last_step_sees_the_first(name: str) -> None:
    model = causal_networks()[name]
    x = torch.rand(STEPS, 8, *FEATURES) * 4
    changed = x.clone()
    changed[0] = 30 * (changed[0] + 1)
    assert not torch.equal(model(x)[-1], model(changed)[-1])


# --- neurons, beside loops in float64 ----------------------------------------------------------------------


def coded(value: float, scale: float, lowest: int, highest: int) -> float:
    return scale * min(max(round(value / scale), lowest), highest)


def far_from(value: float, edge: float) -> bool:
    return abs(value - edge) > 1e-4


@settings(deadline=None, max_examples=60)
@given(
    x=st.lists(st.floats(-2, 3, width=32), min_size=1, max_size=12),
    decay=st.floats(0.1, 0.95),
    rho=st.floats(0.1, 0.95),
    beta=st.floats(0.0, 2.0),
    bits=st.sampled_from([None, 1, 2, 4, 8]),
)
def test_the_adaptive_lif_is_its_equations(
    x: list[float], decay: float, rho: float, beta: float, bits: int | None
) -> None:
    neuron = AdaptiveLIF(1, decay, adaptation=beta, adaptation_decay=rho, bits=bits, v_threshold=0.75)
    spikes = neuron(torch.tensor(x).reshape(-1, 1, 1)).flatten().tolist()
    v = a = 0.0
    for current, spike in zip(x, spikes, strict=True):
        h, threshold = decay * v + current, 0.75 + beta * a
        if not far_from(h, threshold):
            return  # float32 may round it to the other side
        assert spike == (h >= threshold)
        v, a = h - threshold * spike, rho * a + (1 - rho) * spike
        if bits is not None:
            step, lowest = 0.75 / 2 ** (bits - 1), 0 if bits == 1 else -(2 ** (bits - 1))
            pairs = ((v / step) % 1, 0.5), ((a * (2**bits - 1)) % 1, 0.5)
            if not all(far_from(*pair) for pair in pairs):
                return
            v, a = coded(v, step, lowest, lowest + 2**bits - 1), coded(a, 1 / (2**bits - 1), 0, 2**bits - 1)


@settings(deadline=None, max_examples=60)
@given(
    x=st.lists(st.lists(st.floats(-2, 3, width=32), min_size=2, max_size=2), min_size=1, max_size=12),
    decay=st.floats(0.1, 0.95),
    seed=st.integers(0, 99),
    bits=st.sampled_from([None, 2, 4]),
    weight_bits=st.sampled_from([None, 1, 4]),
)
def test_the_recurrent_lif_is_its_equations(
    x: list[list[float]], decay: float, seed: int, bits: int | None, weight_bits: int | None
) -> None:
    torch.manual_seed(seed)
    neuron = RecurrentLIF(2, decay, bits=bits)
    weight = neuron.recurrent.weight.double()
    if weight_bits is not None:
        quantize_weights(neuron.recurrent, weight_bits)
        parts = codes(neuron.recurrent)
        weight = parts.codes.double() * parts.scale.double()
    spikes = neuron(torch.tensor(x).unsqueeze(1)).squeeze(1)
    v, s = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for current, fired in zip(torch.tensor(x).double(), spikes, strict=True):
        h = decay * v + current + weight @ s
        if bool(((h - 1).abs() < 1e-4).any()):
            return
        s = (h >= 1).double()
        assert fired.tolist() == s.tolist()
        v = h - s
        if bits is not None:
            step = 1 / 2 ** (bits - 1)
            if bool((((v / step) % 1 - 0.5).abs() < 1e-4).any()):
                return
            v = step * (v / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def test_an_adaptive_lif_that_does_not_adapt_is_the_lif() -> None:
    x = torch.randn(9, 4, 3, 5, 5)
    for bits in (None, 2, 4):
        plain = QuantizedMembraneLIF(0.7, bits=bits, learnable=True, num_channels=3)
        assert torch.equal(AdaptiveLIF(3, 0.7, adaptation=0.0, bits=bits)(x), plain(x))


# --- codes -------------------------------------------------------------------------------------------------


def test_rounded_values_have_the_gradients_of_the_learned_step_size() -> None:
    x = torch.tensor([-1.0, 0.3, 0.9, 5.0], requires_grad=True)
    scale = torch.tensor([0.5], requires_grad=True)
    y = round_to_codes(x, scale, 0, 3)
    assert y.tolist() == [0.0, 0.5, 1.0, 1.5]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 1.0, 0.0]
    # code minus position inside, the end code outside: 0 + (1 - 0.6) + (2 - 1.8) + 3
    assert scale.grad is not None and scale.grad.item() == pytest.approx(3.6)


def test_a_relu_of_8_bits_has_256_levels() -> None:
    relu = ReLUCodes(8)
    y = relu(torch.linspace(-1, 7, 100_001).unsqueeze(0))
    assert len(y.unique()) == 256
    torch.testing.assert_close(y / relu.scale, (y / relu.scale).round())
    assert torch.equal(ReLUCodes(32)(torch.tensor([-1.0, 2.5])), torch.tensor([0.0, 2.5]))


def test_a_gru_of_bytes_keeps_one_of_256_states() -> None:
    torch.manual_seed(0)
    layer = ByteGRU(3, 64).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=2.0)
    h = layer(3 * torch.randn(50, 100, 3))
    assert torch.equal(128 * h, (128 * h).round())
    assert h.min() == -1 and h.max() == 127 / 128
    assert len(h.unique()) == 256


@pytest.mark.parametrize("weight_bits", [None, 8])
def test_a_gru_of_bytes_is_its_equations(weight_bits: int | None) -> None:
    torch.manual_seed(1)
    layer = ByteGRU(3, 5).eval()
    assert isinstance(layer.norm.running_mean, Tensor)
    layer.norm.running_mean.normal_()
    weights = [layer.project.weight.double(), layer.recur.weight.double()]
    if weight_bits is not None:
        quantize_weights(layer, weight_bits)
        weights = [codes(one).codes * codes(one).scale.double() for one in (layer.project, layer.recur)]
    x = torch.randn(20, 4, 3)
    h = torch.zeros(4, 5, dtype=torch.float64)
    for step, state in zip(x.double(), layer(x), strict=True):
        current = (step @ weights[0].T - layer.norm.running_mean) / math.sqrt(1 + layer.norm.eps)
        back = h @ weights[1].T + layer.recur.bias
        r = (256 * torch.sigmoid(current[:, :5] + back[:, :5])).round().clamp(0, 255) / 256
        z = (256 * torch.sigmoid(current[:, 5:10] + back[:, 5:10])).round().clamp(0, 255) / 256
        n = (128 * torch.tanh(current[:, 10:] + r * back[:, 10:])).round().clamp(-128, 127) / 128
        h = (128 * ((1 - z) * n + z * h)).round().clamp(-128, 127) / 128
        # where float32 rounds to the neighbouring code, the loop goes on from that
        assert (state - h).abs().max() <= 1 / 128
        h = state.double()


def test_a_gru_of_bytes_is_torchs_but_for_rounding() -> None:
    torch.manual_seed(2)
    layer, reference = ByteGRU(3, 16).eval(), nn.GRU(3, 16)
    layer.norm.eps = 0.0
    with torch.no_grad():
        # torch: z weighs the old state as well, and the gates lie in this order
        layer.project.weight.copy_(reference.weight_ih_l0)
        layer.norm.bias.copy_(reference.bias_ih_l0)
        layer.recur.load_state_dict({"weight": reference.weight_hh_l0, "bias": reference.bias_hh_l0})
    x = torch.randn(30, 8, 3)
    torch.testing.assert_close(layer(x), reference(x)[0], atol=0.05, rtol=0)


# --- convolutions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 8])
def test_a_stream_of_convolutions_keeps_the_state_that_is_counted(bits: int) -> None:
    steps, width = 20, 4
    torch.manual_seed(0)
    model = rivals.conv((3,), 2, steps, None, width=width, kernel=3, layers=3, bits=bits).eval()
    x = torch.rand(steps, 1, 3)
    layers = [layer for layer in model.layers if isinstance(layer, CausalLayer)]
    buffers = [torch.zeros(1, layer.synapse.in_channels, layer.past) for layer in layers]
    scores = []
    for step in x:
        y = step.unsqueeze(2)
        for index, layer in enumerate(layers):
            window = torch.cat([buffers[index], y], 2)
            y = layer.activation(layer.norm(layer.synapse(window)))
            buffers[index] = window[:, :, 1:]
        scores.append(model.readout(y.squeeze(2)))
    torch.testing.assert_close(torch.stack(scores), model(x))
    kept = [buffer.numel() for buffer in buffers]
    assert model.costs(x)["state_bits"] == 8 * kept[0] + bits * sum(kept[1:])


@given(steps=st.integers(1, 200), kernel=st.integers(2, 6), layers=st.integers(2, 5))
def test_the_dilations_reach_back_to_the_first_step_and_hardly_further(
    steps: int, kernel: int, layers: int
) -> None:
    dilations = rivals.convolution.dilations_over(steps, kernel, layers)
    base = dilations[1]
    assert dilations == [base**i for i in range(layers)]
    reach = [1 + (kernel - 1) * sum(b**i for i in range(layers)) for b in (base - 1, base)]
    assert reach[1] >= steps and (base == 1 or reach[0] < steps)


def test_a_still_image_is_computed_once() -> None:
    torch.manual_seed(0)
    model = rivals.cnn((1, 8, 8), 3, 4, None, channels=[2], hidden=[5]).eval()
    still = torch.rand(1, 2, 1, 8, 8).expand(4, 2, 1, 8, 8)
    torch.testing.assert_close(model(still), model(still.contiguous()))
    once, copies = model.costs(still), model.costs(still.contiguous())
    assert copies["macs"] == 4 * once["macs"] and copies["energy_joules"] == 4 * once["energy_joules"]


# --- costs by hand -----------------------------------------------------------------------------------------


def test_the_costs_of_a_gru_are_those_by_hand() -> None:
    x = torch.zeros(7, 1, *FEATURES)
    floats = built("gru", 32, {"width": 4}).costs(x)
    # 3 gates of 4 units see 3 inputs and 4 states; 4 biases a unit; read-out 4 x 2 and 2 biases
    assert floats["weight_bytes"] == 4 * (12 * 3 + 12 * 4 + 16 + 8 + 2)
    assert (floats["state_bits"], floats["state_bits_per_neuron"]) == (4 * 32, 32)
    assert floats["macs"] == floats["streaming_macs"] == 7 * (12 * 3 + 12 * 4 + 8)
    assert floats["neuron_operations"] == 7 * 4 * (3 + 2 + 3)
    picojoules = 7 * (92 * 4.6 + 4 * (3 * 0.2 + 2 * 3.7 + 3 * 0.9))
    assert floats["energy_joules"] == pytest.approx(1e-12 * picojoules)

    coded = built("gru", 8, {"width": 4, "bits": 8}).costs(x)
    # a byte a weight; 12 + 12 + 2 scales of 16 bits; 12 + 4 + 2 biases of 32
    assert coded["weight_bytes"] == 92 + 2 * 26 + 4 * 18
    assert (coded["state_bits"], coded["state_bits_per_neuron"]) == (4 * 8, 8)
    picojoules = 7 * (92 * 0.3 + 4 * (3 * 0.2 + 2 * 0.2 + 3 * 0.1))
    assert coded["streaming_energy_joules"] == pytest.approx(1e-12 * picojoules)


def test_the_costs_of_two_layers_of_a_gru_are_those_by_hand() -> None:
    x = torch.zeros(7, 1, *FEATURES)
    for bits in (32, 8):
        counted = built("gru", bits, {"width": 4, "layers": 2, "bits": bits}).costs(x)
        assert counted["macs"] == 7 * (12 * 3 + 3 * 12 * 4 + 8)
        assert counted["state_bits"] == 2 * 4 * bits


def test_the_costs_of_convolutions_are_those_by_hand() -> None:
    x = torch.zeros(STEPS, 1, *FEATURES)
    options = {"width": 4, "kernel": 2, "layers": 3}  # dilations 1, 2, 4: the last step sees the last 8
    coded = built("conv", 8, {**options, "bits": 8}).costs(x)
    weights = 2 * 3 * 4 + 2 * (2 * 4 * 4)
    assert coded["weight_bytes"] == weights + 8 + (2 + 4) * (3 * 4 + 2)
    # taps one, two and four steps back do not exist in the first steps
    macs = (5 + 4) * 12 + (5 + 3) * 16 + (5 + 1) * 16 + 5 * 8
    assert coded["macs"] == coded["streaming_macs"] == macs
    assert coded["state_bits"] == 8 * (1 * 3 + 2 * 4 + 4 * 4)
    assert coded["energy_joules"] == pytest.approx(1e-12 * (0.3 * macs + 0.1 * 5 * 12))
    floats = built("conv", 32, options).costs(x)
    assert floats["weight_bytes"] == 4 * (weights + 12 + 8 + 2)
    assert floats["state_bits"] == 8 * 3 + 32 * (2 * 4 + 4 * 4)  # inputs are bytes
    assert floats["energy_joules"] == pytest.approx(1e-12 * (4.6 * macs + 0.9 * 5 * 12))


def test_the_costs_of_an_image_network_are_those_by_hand() -> None:
    model = rivals.cnn((1, 4, 4), 3, 4, None, channels=[2], hidden=[5])
    quantize_weights(without_zeros(model), 8)
    counted = model.costs(torch.zeros(1, 1, 1, 4, 4))
    # a 3 x 3 kernel meets (2 + 2 * 3 + ..) places of 4 x 4: three rows of which one loses none, two lose one
    reached = sum(
        0 <= row + i < 4 and 0 <= column + j < 4
        for row in range(4)
        for column in range(4)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    macs = reached * 2 + 2 * 2 * 2 * 5 + 5 * 3
    assert counted["macs"] == macs
    assert counted["weight_bytes"] == 18 + 40 + 15 + (2 + 4) * (2 + 5 + 3)
    assert counted["state_bits"] == 0
    assert counted["energy_joules"] == pytest.approx(1e-12 * (0.3 * macs + 0.1 * (2 * 16 + 5)))


@pytest.mark.parametrize("potential_bits", [32, 4])
def test_the_costs_of_the_spiking_rivals_are_those_by_hand(potential_bits: int) -> None:
    x = torch.randint(1, 256, (STEPS, 6, *FEATURES)) / 255  # bytes, no zeros
    neuron = {"kind": "lif", "potential_bits": potential_bits}
    few = potential_bits < 32
    # 3 inputs to 4 neurons in bytes, 4 x 4 in bits, 4 x 2 in bytes; gains and biases of 16 bits
    shared = 12 * 8 + 16 + 8 * 8 + (16 + 16) * (4 + 4 + 2)
    for rival, state, own in (
        ("alif", 2 * potential_bits, 8 * (8 + 8 + 16 + 32 * few)),
        ("recurrent_lif", potential_bits + 1, 8 * (8 + 16 * few) + 2 * (16 + 4 * 16)),
    ):
        model = built(rival, 1, {"hidden": [4, 4]}, neuron=neuron)
        counted = costs.counted(model, x)
        assert counted["weight_bytes"] == math.ceil((shared + own) / 8)
        assert counted["state_bits"] == 8 * state and counted["state_bits_per_neuron"] == state
        assert report(model, x).state_bits == 8 * state
        assert counted["macs"] == STEPS * 12
        spikes = spikes_of(model, x)
        assert counted["spikes"] == pytest.approx(sum(float(s.sum()) for s in spikes) / 6)
        operations = 4 * float(spikes[0].sum()) + 2 * float(spikes[1].sum())
        if rival == "recurrent_lif":  # those of the last step come back no more
            operations += 4 * sum(float(s[:-1].sum()) for s in spikes)
        assert counted["synaptic_operations"] == pytest.approx(operations / 6)
        additions, products = (3, 2) if rival == "alif" else (2, 1)
        price = (0.1, 0.2) if few else (0.9, 3.7)
        neurons = STEPS * 8 * (additions * price[0] + products * price[1])
        picojoules = 0.3 * STEPS * 12 + 0.1 * operations / 6 + neurons
        assert counted["energy_joules"] == pytest.approx(1e-12 * picojoules)


@pytest.mark.parametrize("rival", ["alif", "recurrent_lif"])
def test_layers_that_are_pooled_over_time_are_counted_by_their_own_steps(rival: str) -> None:
    steps, batch, window = 12, 3, 3
    x = torch.randint(1, 256, (steps, batch, *FEATURES)) / 255
    neuron = {"kind": "lif", "potential_bits": 4}
    model = built(rival, 1, {"hidden": [4, 5], "time_pool": [1, window]}, steps, neuron=neuron)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.bias, 0.5)  # so that the second layer fires
    counted = costs.counted(model, x)
    first, second = spikes_of(model, x)
    assert first.shape == (steps, batch, 4) and second.shape == (steps // window, batch, 5)
    assert first.any() and second.any()
    assert counted["spikes"] == pytest.approx(float(first.sum() + second.sum()) / batch)
    pooled = first.unflatten(0, (-1, window)).amax(1)
    operations = 5 * float(pooled.sum()) + 2 * float(second.sum())
    if rival == "recurrent_lif":  # those of the last step come back no more
        operations += 4 * float(first[:-1].sum()) + 5 * float(second[:-1].sum())
    assert counted["synaptic_operations"] == pytest.approx(operations / batch)
    assert counted["macs"] == steps * 3 * 4
    updates = steps * 4 + steps // window * 5  # of a neuron
    additions, products = (3, 2) if rival == "alif" else (2, 1)
    assert counted["neuron_operations"] == updates * (additions + products)
    picojoules = (
        0.3 * counted["macs"] + 0.1 * operations / batch + updates * (additions * 0.1 + products * 0.2)
    )
    assert counted["energy_joules"] == counted["streaming_energy_joules"] == pytest.approx(1e-12 * picojoules)


def spikes_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    outputs: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda *args: outputs.append(args[2].detach()))
        for module in model.modules()
        if isinstance(module, AdaptiveLIF | RecurrentLIF)
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return outputs


# --- as the training builds and counts them ----------------------------------------------------------------


def test_the_weights_within_a_layer_have_the_bits_of_those_between_layers() -> None:
    model = built("recurrent_lif", 1, {"hidden": [4, 4]})
    bits = [layer.weight_bits for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert bits == [8, 1, 1, 1, 8]


def test_every_rival_has_the_keys_of_the_evidence() -> None:
    x = torch.rand(STEPS, 2, *FEATURES)
    for model in causal_networks().values():
        assert set(costs.counted(model, x)) == {"weight_bytes", "spikes", *costs.COUNTED}


@pytest.mark.parametrize("task", TASKS)
def test_the_rivals_of_a_task_can_be_built(task: str) -> None:
    plan = sweep.load(str(HERE / f"{task}.toml"))
    for entry in plan.entries:
        for choice in sweep.choices(entry)[:1]:
            settings = config.load(plan.base, {**plan.common, **entry.settings, **choice}).network
            if settings.architecture.startswith(OF):
                features = (1, 8, 8) if settings.architecture.endswith("cnn") else (13,)
                assert network.build(settings, features, 10, 28)


def test_a_trained_rival_is_counted_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    settings = {
        "data": {"name": "digits", "limit": 40, "validation": 40, "test_limit": 40},
        "network": {"architecture": OF + "gru", "options": {"width": 4, "bits": 8}, "weight_bits": 8},
        "training": {"epochs": 1},
    }
    Trainer(config.from_dict(settings), tmp_path / "run", bars=False).run()
    counted = costs.of_run(tmp_path / "run.json")
    # rows of 8 pixels; a byte a weight, 12 + 12 + 10 scales, 12 + 4 + 10 biases
    assert counted["weight_bytes"] == 12 * (8 + 4) + 4 * 10 + 2 * 34 + 4 * 26
    assert counted["state_bits"] == 32


@pytest.mark.parametrize(
    ("rival", "options", "words"),
    [
        ("gru", {"width": 4, "bits": 4}, "bits = 4 is not accepted"),
        ("gru", {"width": 4, "bits": 8, "norm": False}, "norm = False with bits = 8"),
        ("conv", {"width": 4, "kernel": 1}, "kernel = 1"),
        ("conv", {"width": 4, "layers": 1}, "all steps"),
        ("cnn", {}, "reads images"),
        ("alif", {"hidden": []}, "network.hidden"),
    ],
)
def test_an_option_that_a_rival_cannot_use_is_refused(
    rival: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(config.ConfigError, match=words):
        built(rival, 8, options)


def test_spiking_rivals_refuse_neurons_without_a_soft_reset() -> None:
    for neuron in ({"kind": "fir"}, {"kind": "lif", "reset": "zero"}, {"kind": "lif", "learnable": False}):
        with pytest.raises(config.ConfigError, match=r"network\.neuron\.kind = 'lif'"):
            built("alif", 1, {"hidden": [4]}, neuron=neuron)
