"""Groups of channels that share taps: parameters [K, G], and what is computed is that of taps [K, C]."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, convert, deploy, quantize_weights, report
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.nir import from_nir, to_nir
from mfp_neurons.orders import fit_orders, late_taps, truncate
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.train.config import ConfigError, from_dict
from mfp_neurons.train.network import build
from mfp_neurons.zoo import packed

from .meta_device import check_on_meta

CHANNELS, GROUPS = 6, 3


def step_by_step(neuron: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        mem, rows = neuron.reset_mem(), []  # type: ignore[operator]
        for step in x:
            spikes, mem = neuron(step, mem)
            rows.append(spikes)
        return torch.stack(rows)

    return run


def at_once(neuron: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: neuron(x)[0] if isinstance(neuron, MFPLeakyParallel) else neuron(x)


KERNELS = {
    "fir": dict(kernel="fir", order=4),
    "fir, strided": dict(kernel="fir", order=3, stride=2),
    "fir, power-of-two": dict(kernel="fir", order=4, kernel_bits="pow2"),
    "learned exp": dict(learnable=True),
    "learned exp of an order": dict(learnable=True, order=4, kernel_bits=4),
    "feedback": dict(kernel="fir", order=4, reset="feedback", reset_order=3),
    "feedback beside a learned exp": dict(learnable=True, order=4, reset="feedback"),
    "subtract beside a learned exp": dict(learnable=True, order=4, reset="subtract"),
}


def mfp(**options: Any) -> MFP:
    return MFP(0.7, v_threshold=0.5, **options)


def mfp_node(**options: Any) -> MFPNode:
    return MFPNode(3.0, v_threshold=0.3, step_mode="m", **{"reset": None, **options})


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    chosen = {"reset_mechanism": options.get("reset", "none"), "learn_beta": options.get("learnable", False)}
    return chosen | {k: v for k, v in options.items() if k not in ("reset", "learnable")}


def leaky(**options: Any) -> MFPLeaky:
    return MFPLeaky(0.7, 0.5, **renamed(options))


def leaky_parallel(**options: Any) -> MFPLeakyParallel:
    return MFPLeakyParallel(0.7, 0.5, **renamed(options))


NEURONS = {
    "MFP": (mfp, at_once),
    "MFPNode": (mfp_node, at_once),
    "MFPLeaky": (leaky, step_by_step),
    "MFPLeakyParallel": (leaky_parallel, at_once),
}
each_neuron = pytest.mark.parametrize(("make", "runner"), NEURONS.values(), ids=NEURONS)
each_kernel = pytest.mark.parametrize("options", KERNELS.values(), ids=KERNELS)


def kernel_parameters(neuron: nn.Module) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in neuron.named_parameters()
        if name.rpartition(".")[2] in ("taps", "decay_logit", "beta")
    }


def stirred(neuron: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in kernel_parameters(neuron).items():
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = (values.sigmoid() if name.endswith("beta") else values).to(parameter.dtype)
    return neuron


def with_expanded_parameters(neuron: nn.Module, other: nn.Module) -> nn.Module:
    """``other``, which has one set a channel, with the parameters of ``neuron``, channel by channel."""
    theirs = kernel_parameters(other)
    for name, parameter in kernel_parameters(neuron).items():
        per_group = CHANNELS // parameter.shape[-1]
        columns = [parameter.detach()[..., c // per_group] for c in range(CHANNELS)]
        assert theirs[name].shape[-1] == CHANNELS
        theirs[name].data = torch.stack(columns, -1)
    return other


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_channel_c_uses_the_taps_of_its_group(order, groups, in_a_group, seed):
    generator = torch.Generator().manual_seed(seed)
    channels = groups * in_a_group
    neuron = MFP(0.5, kernel="fir", order=order, num_channels=channels, groups=groups).double()
    taps = torch.randn(order, groups, generator=generator, dtype=torch.float64)
    neuron.kernel.taps.data = taps
    x = torch.randn(6, 2, channels, 3, generator=generator, dtype=torch.float64)
    potential = torch.zeros_like(x)
    for t in range(6):
        for c in range(channels):
            for k in range(min(t + 1, order)):
                potential[t, :, c] += taps[k, c // in_a_group] * x[t - k, :, c]
    assert torch.equal(neuron(x).detach(), (potential >= 1).double())


@each_neuron
@each_kernel
@given(groups=st.sampled_from([1, 2, 3, 6]), seed=st.integers(0, 2**31))
def test_it_computes_what_equal_taps_of_each_channel_do(make, runner, options, groups, seed):
    shared = stirred(make(num_channels=CHANNELS, groups=groups, **options), seed).double()
    apart = with_expanded_parameters(shared, make(num_channels=CHANNELS, **options).double())
    parameters = kernel_parameters(shared)
    assert parameters
    assert {parameter.shape[-1] for parameter in parameters.values()} == {groups}
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(7, 2, CHANNELS, 2, generator=generator, dtype=torch.float64)
    mine, theirs = runner(shared)(x), runner(apart)(x)
    assert torch.equal(mine, theirs)
    weights = torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
    (mine * weights).sum().backward()
    (theirs * weights).sum().backward()
    for name, parameter in parameters.items():
        gradient = kernel_parameters(apart)[name].grad
        total = gradient.unflatten(-1, (groups, CHANNELS // groups)).sum(-1)
        torch.testing.assert_close(parameter.grad, total)


@each_neuron
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_channels=6, groups=4), "groups must divide num_channels, got groups=4 and num_channels=6"),
        (dict(groups=2), "groups=2 needs num_channels, which it must divide, got None"),
        (dict(num_channels=6, groups=0), "groups must be an integer >= 1, got 0"),
        (
            dict(kernel="matrix", order=None, time_steps=4, groups=2),
            "kernel='matrix' is shared by all channels; groups must be None, got 2",
        ),
    ],
)
def test_groups_that_have_no_meaning_are_refused_by_one_sentence(make, runner, options, message):
    with pytest.raises(ValueError, match="groups") as raised:
        make(**{"kernel": "fir", "order": 4, **options})
    assert str(raised.value) == message


@each_neuron
@each_kernel
def test_copies_pickles_and_state_dicts_keep_the_groups(make, runner, options):
    neuron = stirred(make(num_channels=CHANNELS, groups=GROUPS, **options))
    x = torch.randn(7, 2, CHANNELS)
    fresh = make(num_channels=CHANNELS, groups=GROUPS, **options)
    fresh.load_state_dict(neuron.state_dict())
    spikes = runner(neuron)(x)
    for other in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron)), fresh):
        if isinstance(other, MFPNode):
            other.reset()
        assert torch.equal(runner(other)(x), spikes)
        assert f"groups={GROUPS}" in repr(other)
    assert f"num_channels={CHANNELS}, groups={GROUPS}" in repr(neuron)


@each_neuron
@each_kernel
def test_it_trains_on_the_meta_device(make, runner, options):
    neuron = make(num_channels=CHANNELS, groups=GROUPS, **options)
    x = torch.randn(5, 2, CHANNELS, 3)

    def reset(module: Any) -> None:
        if isinstance(module, MFPNode):
            module.reset()
        elif isinstance(module, MFPLeaky):
            module.reset_mem()

    check_on_meta(neuron, list(x) if isinstance(neuron, MFPLeaky) else [x], reset)


def test_a_learned_threshold_stays_one_a_channel():
    neuron = MFP(0.5, kernel="fir", order=3, num_channels=6, groups=2, learn_threshold=True)
    assert neuron.v_threshold.shape == (6,)
    assert neuron.kernel.taps.shape == (3, 2)


def test_another_tau_keeps_the_groups():
    node = MFPNode(order=4, num_channels=6, groups=2, reset="feedback")
    node.tau = 3.0
    assert (node.kernel.num_channels, node.kernel.groups) == (6, 2)
    assert node.feedback.taps.shape == (3, 2)


@pytest.mark.parametrize("options", [dict(), dict(order=3), dict(order=3, reset_mechanism="subtract")])
def test_a_gain_for_each_group_scales_the_inputs_of_its_channels(options):
    betas, gains = torch.tensor([0.5, 0.75]), torch.tensor([0.5, 2.0])
    options = {"reset_mechanism": "none", **options}
    shared = MFPLeaky(betas, num_channels=4, groups=2, gain=gains, **options)
    apart = MFPLeaky(betas.repeat_interleave(2), num_channels=4, gain=gains.repeat_interleave(2), **options)
    x = torch.randn(6, 2, 4)
    assert torch.equal(step_by_step(shared)(x), step_by_step(apart)(x))
    assert torch.equal(shared.mem, apart.mem)


def test_a_beta_for_each_group_starts_the_taps_of_its_channels():
    betas = torch.tensor([0.5, 0.25])
    neuron = MFPLeaky(betas, kernel="fir", order=3, num_channels=4, groups=2, reset_mechanism="none")
    assert neuron.kernel.taps.tolist() == [[1.0, 1.0], [0.5, 0.25], [0.25, 0.0625]]
    assert neuron.kernel().taps[1].tolist() == [0.5, 0.5, 0.25, 0.25]
    learned = MFPLeaky(betas, num_channels=4, groups=2, learn_beta=True)
    assert learned.beta.shape == (2,)
    with pytest.raises(ValueError, match=r"beta must have 1 or 2 \(groups\) values, got \[4\]"):
        MFPLeaky(torch.rand(4), num_channels=4, groups=2)
    with pytest.raises(ValueError, match=r"with 4 values of beta needs groups=4, got 2"):
        MFPLeaky(torch.rand(4), kernel="fir", order=3, num_channels=4, groups=2)


# --- orders, conversion, description ----------------------------------------------------------------------


def network(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, CHANNELS), mfp(**options), nn.Linear(CHANNELS, 4), mfp(kernel="fir", order=4)
    )
    return stirred(net)  # type: ignore[return-value]


def test_late_taps_and_orders_are_those_of_equal_taps_of_each_channel():
    shared = network(kernel="fir", order=4, num_channels=CHANNELS, groups=GROUPS)
    apart = network(kernel="fir", order=4, num_channels=CHANNELS)
    apart = with_expanded_parameters(shared[1], apart[1]) and apart
    apart[3].load_state_dict(shared[3].state_dict())
    torch.testing.assert_close(late_taps(shared), late_taps(apart))
    example = torch.rand(6, 1, 5)
    orders = fit_orders(shared, example, state_bits=2.0)
    assert orders == fit_orders(apart, example, state_bits=2.0)
    assert shared[1].kernel.taps.shape == (orders["1"], GROUPS)
    truncate(shared, {"1": 1})
    assert shared[1].kernel.taps.shape == (1, GROUPS)


def test_convert_gives_groups_to_every_layer_and_names_the_one_that_they_do_not_divide():
    import snntorch as snn

    def model() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(5, 6),
            snn.Leaky(0.9, init_hidden=True),
            nn.Linear(6, 9),
            snn.Leaky(0.9, init_hidden=True),
        )

    options: Any = dict(kernel="fir", order=3, num_channels="auto", reset="feedback")
    net = convert(model(), groups=3, **options)
    assert [net[i].kernel.taps.shape for i in (1, 3)] == [(3, 3), (3, 3)]
    assert [net[i].feedback.taps.shape for i in (1, 3)] == [(2, 3), (2, 3)]
    assert "num_channels=9, groups=3" in str(net.mfp_conversion)
    with pytest.raises(
        ValueError, match=r"3.*: groups must divide num_channels, got groups=2 and num_ch.*=9"
    ):
        convert(model(), groups=2, **options)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize(("bits", "groups"), [("pow2", GROUPS), (4, GROUPS), ("pow2", 1)])
def test_lowering_is_exact(feedback, bits, groups):
    options = dict(reset="feedback", reset_order=2) if feedback else {}
    neuron = dict(kernel="fir", order=3, kernel_bits=bits, **options)
    net = network(num_channels=CHANNELS, groups=groups, **neuron)
    net = quantize_weights(net[:3].append(mfp(kernel="fir", order=2, kernel_bits=bits)), 1, first=1, last=1)
    x = (torch.rand(12, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    lowered = deploy.lower(net, x)
    spikes = copy.deepcopy(net).double()(x.double()).detach().numpy().astype(np.int64)
    assert 0 < spikes.mean() < 1
    assert np.array_equal(np.asarray(lowered.run(x)), spikes)


@pytest.mark.parametrize("groups", [1, GROUPS])
@pytest.mark.parametrize("options", [dict(kernel="fir", order=3), dict(learnable=True)])
def test_nir_holds_the_values_of_each_channel(options, groups):
    net = network(num_channels=CHANNELS, groups=groups, **options)
    x = torch.rand(7, 2, 5)
    back = from_nir(to_nir(net, x))
    assert torch.equal(back(x), net(x))


def test_a_report_counts_the_bits_of_one_tap_set_a_group():
    def tap_bytes(**options: Any) -> int:
        net = nn.Sequential(
            nn.Linear(5, 8, bias=False), mfp(kernel="fir", order=4, kernel_bits="pow2", **options)
        )
        return report(net, torch.rand(3, 1, 5)).weight_bytes - 4 * 5 * 8

    # four taps of four bits and a byte for their largest exponent
    assert tap_bytes(num_channels=8, groups=2) == 2 * (2 + 1)
    assert tap_bytes(num_channels=8) == 8 * (2 + 1)
    assert tap_bytes(num_channels=8, groups=2, reset="feedback", reset_order=2) == 2 * (2 + 1) + 2 * (1 + 1)


# --- training and the zoo ---------------------------------------------------------------------------------


def settings(**neuron: Any) -> dict[str, Any]:
    return {"network": {"hidden": [8, 12], "neuron": {"kernel_bits": "pow2", "order": 3, **neuron}}}


def test_a_configuration_gives_every_layer_its_groups():
    config = from_dict(settings(groups=[0, 4], feedback=2))
    first, second = (block.neuron for block in build(config.network, (5,), 3, 6).blocks())
    assert (first.kernel.taps.shape, second.kernel.taps.shape) == ((3, 8), (3, 4))
    assert (first.feedback.taps.shape, second.feedback.taps.shape) == ((2, 8), (2, 4))
    layer = from_dict(settings(groups=0, per_channel=False))
    assert build(layer.network, (5,), 3, 6).blocks()[0].neuron.kernel.taps.shape == (3,)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (dict(groups=4, per_channel=False), "groups = 4 in hidden layer 0: .* per_channel = false; give 0"),
        (dict(groups=4, kind="lif", kernel_bits=0, order=0), "not of 'lif' with per_channel = true; give 0"),
        (dict(groups=4, kind="matrix"), "groups = 4 in hidden layer 0: .* not of 'matrix'"),
        (dict(groups=-1), "groups"),
    ],
)
def test_a_configuration_that_has_no_use_for_groups_is_refused(neuron, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(settings(**neuron))


def test_a_configuration_whose_groups_do_not_divide_a_layer_is_refused():
    config = from_dict(settings(groups=3))
    with pytest.raises(ConfigError, match="groups must divide num_channels, got groups=3 and num_channels=8"):
        build(config.network, (5,), 3, 6)


def test_a_packed_network_keeps_one_tap_set_a_group(tmp_path):
    config = from_dict(settings(groups=4))
    net = stirred(build(config.network, (5,), 3, 6)).eval()
    facts = packed.Facts(config.as_dict(), (5,), 3, 6, 1, 1.0)
    packed.save(tmp_path / "net", net, facts)
    back, _ = packed.load(tmp_path / "net")
    assert [block.neuron.kernel.taps.shape for block in back.blocks()] == [(3, 4), (3, 4)]
    x = torch.rand(6, 2, 5)
    assert torch.equal(back(x), net(x))


def test_a_kernel_shows_its_groups():
    kernel = HistoryKernel("fir", decay=0.5, order=2, num_channels=4, groups=2)
    assert repr(kernel) == "HistoryKernel(fir, decay=0.5, order=2, num_channels=4, groups=2)"
    assert kernel.options() == {"order": 2, "num_channels": 4, "groups": 2}
