"""Layers whose spikes come back through weights a step later agree with float64 to the last spike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, convert, deploy, quantize, quantize_weights, report
from mfp_neurons.deploy import LoweringError
from mfp_neurons.deploy.graph import Neurons
from mfp_neurons.network import describe

from .lowering import Do

pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
snn = pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")
from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402

T, N, FEATURES = 8, 3, 6


def events(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


def codes_times_scale(module: nn.Module) -> Tensor:
    codes = quantize.codes(module)
    return codes.codes.double() * codes.scale.double()


def by_definition(
    currents: Tensor, back, decay: float, threshold: float, reset: str, *, late: bool
) -> Tensor:
    """Spikes [T, N, *] of currents, a recurrence, and a potential, in float64.

    ``late``: as in snnTorch, the threshold is subtracted a step later and equality fires nothing.
    """
    u, spikes, fired = torch.zeros_like(currents[0]), torch.zeros_like(currents[0]), []
    for current in currents:
        u = decay * u + current + back(spikes)
        if late and reset == "subtract":
            u = u - threshold * spikes
        spikes = (u > threshold if late else u >= threshold).double()
        if not late and reset == "subtract":
            u = u - threshold * spikes
        if not late and reset == "zero":
            u = u * (1 - spikes)
        fired.append(spikes)
    return torch.stack(fired)


def agree(model: nn.Module, x: Tensor, expected: Tensor) -> deploy.IntegerNetwork:
    """The integers, all at once and as a stream, are the spikes expected."""
    network = deploy.lower(model, x)
    assert 0 < float(expected.mean()) < 1, "spikes that are all alike test nothing"
    np.testing.assert_array_equal(network.run(x.numpy(), backend="numpy"), expected.numpy())
    stream = network.stream(backend="numpy")
    for step, wanted in zip(x, expected, strict=True):
        np.testing.assert_array_equal(stream.step(step.numpy()), wanted.numpy())
    return network


def way_back(network: deploy.IntegerNetwork) -> Neurons:
    """The one layer of the network with recurrent synapses."""
    (op,) = (op for op in network.graph.ops if isinstance(op, Neurons) and op.recurrent)
    return op


@given(
    seed=st.integers(0, 10_000),
    bits=st.sampled_from([1, 1.58, 2, 4, 8]),
    leak=st.booleans(),
    reset=st.sampled_from([None, 0.0]),
    bias=st.booleans(),
    step_mode=st.sampled_from(["s", "m"]),
)
@settings(max_examples=25, deadline=None)
def test_a_linear_container_behind_spikes(seed, bits, leak, reset, bias, step_mode):
    torch.manual_seed(seed)
    kind = (
        neuron.LIFNode(tau=2.0, decay_input=False, v_reset=reset, v_threshold=0.4)
        if leak
        else (neuron.IFNode(v_reset=reset, v_threshold=0.4))
    )
    container = layer.LinearRecurrentContainer(kind, FEATURES, FEATURES, bias=bias, step_mode=step_mode)
    quantize_weights(container, bits, first=bits, last=bits)
    model = container if step_mode == "m" else Do(loop, container)
    x = events(T, N, FEATURES, seed=seed)
    weight = codes_times_scale(container.rc)
    offset = container.rc.bias.detach().double() if bias else 0.0
    expected = by_definition(
        x.double() @ weight[:, :FEATURES].T + offset,
        lambda spikes: spikes @ weight[:, FEATURES:].T,
        0.5 if leak else 1.0,
        0.4,
        "subtract" if reset is None else "zero",
        late=False,
    )
    if not 0 < float(expected.mean()) < 1:
        return
    op = way_back(agree(model, x, expected))
    assert op.recurrent[0].codes.shape == (FEATURES, FEATURES, 1, 1)


def loop(x: Tensor, container: nn.Module) -> Tensor:
    return torch.stack([container(step) for step in x])


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize(
    ("function", "scale", "offset", "back"),
    [
        (lambda x, y: x + y, 1.0, 0.0, 1.0),
        (lambda y, x: x - 0.5 * y, 1.0, 0.0, -0.5),
        (lambda y, x: 2 * (0.25 * x + y) + 0.125, 0.5, 0.125, 2.0),
        (lambda y, x: 0.5 * x, 0.5, 0.0, 0.0),
    ],
)
def test_an_element_wise_container_behind_a_linear_layer(step_mode, function, scale, offset, back):
    torch.manual_seed(0)
    synapse = nn.Linear(FEATURES, 4)
    kind = neuron.IFNode(v_reset=None, v_threshold=0.5)
    container = layer.ElementWiseRecurrentContainer(kind, function, step_mode=step_mode)
    chain = nn.Sequential(synapse, container)
    quantize_weights(chain, 4)
    model = chain if step_mode == "m" else Do(loop, chain)
    x = events(T, N, FEATURES)
    currents = x.double() @ codes_times_scale(synapse).T + synapse.bias.detach().double()
    expected = by_definition(
        scale * currents + offset, lambda spikes: back * spikes, 1.0, 0.5, "subtract", late=False
    )
    agree(model, x, expected)


@pytest.mark.parametrize("function", [lambda y, x: x * y, lambda y, x: x * (1 - y), torch.maximum])
def test_another_function_of_input_and_spikes_is_refused(function):
    container = layer.ElementWiseRecurrentContainer(neuron.IFNode(), function, step_mode="m")
    model = quantize_weights(nn.Sequential(nn.Linear(4, 4), container))
    with pytest.raises(LoweringError, match=r"'1' \(ElementWiseRecurrentContainer\) combines .* x \+ c \* y"):
        deploy.lower(model, events(T, N, 4))


def test_a_path_back_that_is_longer_than_one_neuron_is_refused():
    inside = nn.Sequential(nn.Linear(4, 4), neuron.IFNode())
    model = quantize_weights(nn.Sequential(layer.LinearRecurrentContainer(inside, 4, 4, step_mode="m")))
    with pytest.raises(
        LoweringError, match=r"'0' \(LinearRecurrentContainer\) feeds .* longer than one neuron"
    ):
        deploy.lower(model, events(T, N, 4))


def test_weights_back_that_are_real_numbers_are_refused():
    model = nn.Sequential(layer.LinearRecurrentContainer(neuron.IFNode(), 4, 4, step_mode="m"))
    with pytest.raises(LoweringError, match=r"'0.rc' \(Linear\).*quantize_weights"):
        deploy.lower(model, events(T, N, 4))


@pytest.mark.parametrize("options", [{"reset": "keep"}, {"reset": "keep", "order": 3}, {"order": 3}], ids=str)
def test_converted_neurons_in_containers(options):
    torch.manual_seed(0)
    kind = neuron.LIFNode(tau=2.0, decay_input=False, v_reset=None, v_threshold=0.4)
    container = layer.LinearRecurrentContainer(kind, FEATURES, FEATURES, step_mode="m")
    model = quantize_weights(convert(nn.Sequential(container), **options), 4)
    x = events(T, N, FEATURES)
    with torch.no_grad():
        expected = model.double()(x.double())
    functional.reset_net(model)
    op = way_back(agree(model.float(), x, expected))
    assert op.order == options.get("order", T)


class Recurrent(nn.Module):
    """An RLeaky behind a layer, in a loop as snnTorch's users write it; ``call`` is how they call it."""

    def __init__(self, synapse: nn.Module, rleaky: nn.Module, call=lambda *states: (states, {})) -> None:
        super().__init__()
        self.synapse, self.rleaky, self.call = synapse, rleaky, call

    def forward(self, x: Tensor) -> Tensor:
        spk, mem = self.rleaky.init_rleaky()
        record = []
        for step in range(x.size(0)):
            args, kwargs = self.call(spk, mem)
            spk, mem = self.rleaky(self.synapse(x[step]), *args, **kwargs)
            record.append(spk)
        return torch.stack(record)


@pytest.mark.parametrize(
    "call",
    [
        lambda spk, mem: ((spk,), {"mem": mem}),
        lambda spk, mem: ((), {"spk": spk, "mem": mem}),
        lambda spk, mem: ((), {"mem": mem, "spk": spk}),
    ],
    ids=["one by name", "both by name", "both by name, the potential first"],
)
def test_the_states_of_an_rleaky_may_be_passed_by_name(call):
    torch.manual_seed(0)
    synapse, rleaky = nn.Linear(FEATURES, 4), snn.RLeaky(beta=0.5, threshold=0.4, linear_features=4)
    model = quantize_weights(Recurrent(synapse, rleaky, call), 4)
    x = events(T, N, FEATURES)
    with torch.no_grad():
        agree(model, x, model(x))


@pytest.mark.parametrize("reset", ["subtract", "none"])
@pytest.mark.parametrize("kind", ["linear", "convolution", "one number", "one number each"])
def test_rleaky(kind, reset):
    torch.manual_seed(0)
    options = {
        "linear": {"linear_features": 4},
        "convolution": {"conv2d_channels": 4, "kernel_size": 3},
        "one number": {"all_to_all": False, "V": -0.3},
        "one number each": {"all_to_all": False, "V": torch.tensor([0.5, -0.25, 0.3, 0.0])},
    }[kind]
    is_map = kind == "convolution"
    synapse = nn.Conv2d(2, 4, 3, padding=1) if is_map else nn.Linear(FEATURES, 4)
    rleaky = snn.RLeaky(beta=0.5, threshold=0.4, reset_mechanism=reset, **options)
    model = quantize_weights(Recurrent(synapse, rleaky), 4)
    x = events(T, N, 2, 5, 5) if is_map else events(T, N, FEATURES)
    double = quantize_in_float64(model)
    currents = torch.stack([double.synapse(step) for step in x.double()]).detach()
    back = double.rleaky.recurrent
    expected = by_definition(currents, lambda spikes: back(spikes).detach(), 0.5, 0.4, reset, late=True)
    agree(model, x, expected)
    with torch.no_grad():  # what snnTorch itself computes
        np.testing.assert_array_equal(model(x).numpy(), expected.numpy())


def quantize_in_float64(model: nn.Module) -> nn.Module:
    """A copy in float64 whose weights are codes times scales."""
    copied = quantize.materialize(model).double()
    for path, module in model.named_modules():
        if quantize.is_quantized(module):
            with torch.no_grad():
                copied.get_submodule(path).get_parameter("weight").copy_(codes_times_scale(module))
    return copied


def test_rleaky_that_is_given_other_spikes_is_refused():
    def forward(x: Tensor, synapse: nn.Module, rleaky: nn.Module) -> Tensor:
        spk, mem = rleaky.init_rleaky()
        first, record = spk, []
        for step in x:
            spk, mem = rleaky(synapse(step), first, mem)
            record.append(spk)
        return torch.stack(record)

    rleaky = snn.RLeaky(beta=0.5, linear_features=4)
    model = quantize_weights(Do(forward, nn.Linear(FEATURES, 4), rleaky))
    with pytest.raises(LoweringError, match=r"\(RLeaky\) is given other spikes than its own"):
        deploy.lower(model, events(T, N, FEATURES))


def test_the_potential_of_a_recurrent_neuron_is_not_read_out():
    def forward(x: Tensor, synapse: nn.Module, rleaky: nn.Module) -> Tensor:
        spk, mem = rleaky.init_rleaky()
        record = []
        for step in x:
            spk, mem = rleaky(synapse(step), spk, mem)
            record.append(mem)
        return torch.stack(record)

    model = quantize_weights(Do(forward, nn.Linear(FEATURES, 4), snn.RLeaky(beta=0.5, linear_features=4)))
    with pytest.raises(LoweringError, match=r"\(RLeaky\) reads its own last spikes .* Return its spikes"):
        deploy.lower(model, events(T, N, FEATURES))


def test_rleaky_that_drops_its_input_after_a_spike_is_refused():
    rleaky = snn.RLeaky(beta=0.5, linear_features=4, reset_mechanism="zero")
    model = quantize_weights(Recurrent(nn.Linear(FEATURES, 4), rleaky))
    with pytest.raises(LoweringError, match=r"drops the input of the step after a spike"):
        deploy.lower(model, events(T, N, FEATURES))


def test_a_recurrent_network_is_reported_saved_and_described(tmp_path):
    torch.manual_seed(0)
    container = layer.LinearRecurrentContainer(
        neuron.IFNode(v_reset=None, v_threshold=0.4), FEATURES, FEATURES, step_mode="m"
    )
    model = quantize_weights(nn.Sequential(container, layer.Linear(FEATURES, 3, step_mode="m")), 4)
    x = events(T, N, FEATURES)
    costs = report(model, x)
    (row,) = (one for one in costs.synapses if one.name == "0.rc")
    assert row.weights == 2 * FEATURES**2 and row.synaptic_operations > 0
    assert {(one.what, one.bits) for one in costs.state} == {
        ("v", 32 * FEATURES),
        ("spikes that come back", FEATURES),
    }
    assert not costs.not_counted
    network = deploy.lower(model, x)
    assert "come back" in str(describe(model, x))
    network.save(tmp_path / "network.npz")
    loaded = deploy.IntegerNetwork.load(tmp_path / "network.npz")
    np.testing.assert_array_equal(
        loaded.run(x.numpy(), backend="numpy"), network.run(x.numpy(), backend="numpy")
    )


def remembered(spikes: Tensor, order: int) -> int:
    """At how many steps and places there was a spike within the last ``order`` steps."""
    return sum(int(spikes[max(t - order + 1, 0) : t + 1].amax(0).sum()) for t in range(len(spikes)))


def memory_free(order: int) -> nn.Module:
    return MFPNode(tau=2.0, decay_input=False, v_threshold=0.4, reset=None, order=order)


@pytest.mark.parametrize("order", [1, 3])
def test_operations_of_a_linear_container_counted_by_hand(order):
    """Every spike of the input and every last spike reaches each neuron; in a stream, every trace does."""
    torch.manual_seed(0)
    container = layer.LinearRecurrentContainer(memory_free(order), FEATURES, FEATURES, step_mode="m")
    model = quantize_weights(container, 1, first=1, last=1)  # no weight of 0
    x = events(T, 1, FEATURES)
    with torch.no_grad():
        spikes = model(x)
    functional.reset_net(model)
    arrived = torch.cat((x, torch.cat((torch.zeros_like(x[:1]), spikes[:-1]))), -1)
    costs = report(model, x)
    assert costs.synaptic_operations == FEATURES * arrived.sum()
    assert costs.streaming_synaptic_operations == FEATURES * remembered(arrived, order)
    # K - 1 of both, and the spikes of the step before
    assert costs.state_bits == 2 * FEATURES * (order - 1) + FEATURES
    assert costs.state_bits == deploy.lower(model, x).graph.state_bits()
    assert not costs.not_counted


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_element_wise_container_keeps_one_own_spike_for_each_tap(order):
    container = layer.ElementWiseRecurrentContainer(memory_free(order), lambda x, y: x + y, step_mode="m")
    model = quantize_weights(nn.Sequential(layer.Linear(FEATURES, 4, step_mode="m"), container), 1)
    x = events(T, 1, FEATURES)
    costs = report(model, x)
    assert costs.state_bits == FEATURES * (order - 1) + 4 * order
    network = deploy.lower(model, x)
    assert costs.state_bits == network.graph.state_bits()
    assert network.memory().state_stream == -(-costs.state_bits // 8)


def test_the_memory_of_two_heads_is_that_of_what_both_read():
    def heads(x, a, fire, b, c):
        y = fire(a(x))
        return b(y), c(y).mean(0)

    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.1)
    model = quantize_weights(Do(heads, nn.Linear(FEATURES, 5), fire, nn.Linear(5, 2), nn.Linear(5, 4)), 8)
    network = deploy.lower(model, events(T, N, FEATURES))
    memory = network.memory()
    assert memory.weights == 6 * 5 + 5 * 2 + 5 * 4  # bytes, of 8 bits each
    assert memory.state_stream == -(-2 * FEATURES // 8)  # neither head keeps anything
    assert memory.state_run == 0
    assert str(network).count("scores") == 2


def attention(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module, fire: nn.Module) -> Tensor:
    a, b, c = (one(x) for one in (q, k, v))
    return fire(a @ b.mT @ c).flatten(2)


def test_attention_is_counted_up_to_its_products_which_are_listed():
    torch.manual_seed(0)
    projections = [
        nn.Sequential(nn.Linear(4, 4, bias=False), MFP(0.5, order=3, v_threshold=0.2)) for _ in "qkv"
    ]
    model = quantize_weights(
        Do(attention, *projections, MFP(0.5, order=2, v_threshold=2.0)), 1, first=1, last=1
    )
    x = events(T, 1, 5, 4)
    costs = report(model, x)
    assert costs.synaptic_operations == 3 * 4 * x.sum()  # each reaches 4 neurons, three times
    assert costs.streaming_synaptic_operations == 3 * 4 * remembered(x, 3)
    # the input of two steps, which the three share, and the spikes of one step of each
    assert costs.state_bits == 2 * 20 + 3 * 20
    assert costs.not_counted == {"Do": "a matrix product outside of the layers that are counted"}


def test_nir_refuses_a_recurrent_layer_with_what_to_do():
    pytest.importorskip("nir", reason="the 'nir' extra is not installed")
    from mfp_neurons.nir import to_nir

    model = nn.Sequential(layer.LinearRecurrentContainer(neuron.IFNode(v_reset=None), 4, 4, step_mode="m"))
    with pytest.raises(ValueError, match="come back"):
        to_nir(model, events(T, N, 4))
