"""Every architecture by name: built from settings, trained a step, deployed where it can be."""

import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, deploy
from mfp_neurons.architectures import BUILDERS
from mfp_neurons.architectures.snntorch_models import as_leaky
from mfp_neurons.architectures.spikingjelly_models import as_node
from mfp_neurons.snntorch import MFPLeakyParallel
from mfp_neurons.train import network
from mfp_neurons.train.config import ConfigError, NetworkConfig, NeuronConfig, from_dict
from mfp_neurons.train.data import Data, Split
from mfp_neurons.train.deployment import Deployed, Readout, agreement

T = 3
# architecture: options at a small size, features of a step, layers of neurons, what they are
SMALL = {
    "resnet19": (dict(width=4), (1, 12, 12), 18, MFP),
    "vggsnn": (dict(width=2), (2, 17, 17), 8, MFP),
    "fashion-mnist-net": (dict(channels=4), (1, 28, 28), 4, MFPNode),
    "nmnist-net": (dict(channels=2), (2, 34, 34), 4, MFPNode),
    "spiking-resnet18": (dict(layers=[1, 1, 1, 1]), (1, 16, 16), 9, MFPNode),
    "sew-resnet18": (dict(layers=[1, 1, 1, 1]), (1, 16, 16), 12, MFPNode),
    "ms-resnet18": (dict(layers=[1, 1, 1], base_channels=4), (1, 28, 28), 7, MFPNode),
    "spikformer": (dict(embed_dims=16, num_heads=2, depths=1), (1, 16, 16), 10, MFPNode),
    "snntorch-fcn": (dict(hidden=20), (1, 6, 6), 2, MFPLeakyParallel),
    "snntorch-csnn": (dict(channels=[3, 4]), (1, 20, 20), 3, MFPLeakyParallel),
    "snntorch-events": (dict(channels=[3, 4]), (2, 21, 21), 3, MFPLeakyParallel),
}


def build(name: str, **neuron: object) -> nn.Module:
    options, features, *_ = SMALL[name]
    settings = NeuronConfig(**{"kernel_bits": "pow2", "order": 2, "threshold": 0.5, **neuron})
    config = NetworkConfig(architecture=name, options=options, neuron=settings)
    torch.manual_seed(0)
    return network.build(config, features, 10, T)


def example(name: str, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 2, (T, batch, *SMALL[name][1])).float()


@pytest.mark.parametrize("name", ["fashion-mnist-net", "nmnist-net"])
def test_maps_can_be_averaged_in_place_of_their_maximum(name: str) -> None:
    options, features, *_ = SMALL[name]
    settings = NeuronConfig(kernel_bits="pow2", order=2, threshold=0.2)
    nets = []
    for pool in ("max", "average"):
        config = NetworkConfig(architecture=name, options={**options, "pool": pool}, neuron=settings)
        torch.manual_seed(0)
        nets.append(network.build(config, features, 10, T).double())
    pools = [[type(m) for m in net.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)] for net in nets]
    assert len(pools[0]) == len(pools[1]) > 0
    assert all(issubclass(one, nn.MaxPool2d) for one in pools[0])
    assert all(issubclass(one, nn.AvgPool2d) for one in pools[1])
    x = example(name).double()
    average = Readout(nets[1], T).eval()
    with torch.no_grad():
        expected = average(x)
        assert not torch.equal(Readout(nets[0], T).eval()(x), expected)
    torch.testing.assert_close(torch.as_tensor(deploy.lower(average, x, levels=1).run(x)), expected)
    options = {**options, "pool": "median"}
    with pytest.raises(ConfigError, match="pool must be 'max' or 'average', got 'median'"):
        network.build(NetworkConfig(architecture=name, options=options, neuron=settings), features, 10, T)


def test_every_architecture_in_the_table_is_tested_here() -> None:
    assert {*SMALL, "spiking-vgg11-bn"} == set(BUILDERS)  # that one has 128 million weights at any size


def test_vgg_11_without_its_memory_has_the_shapes_that_it_should() -> None:
    settings = NeuronConfig(kernel_bits="pow2", order=2)
    with torch.device("meta"):
        net = network.build(
            NetworkConfig(architecture="spiking-vgg11-bn", neuron=settings), (1, 32, 32), 7, T
        )
        assert net(torch.rand(T, 2, 1, 32, 32)).shape == (T, 2, 7)
    channels = [module.kernel.num_channels for module in net.modules() if isinstance(module, MFPNode)]
    assert channels == [64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096]


@pytest.mark.parametrize("name", SMALL)
def test_it_gives_scores_and_gradients_and_starts_every_call_from_rest(name: str) -> None:
    net, x = build(name), example(name, 4)
    scores = net(x)
    assert scores.shape in ((T, 4, 10), (1, 4, 10))
    scores.square().sum().backward()
    trained = [p for p in net.parameters() if p.grad is not None and p.grad.any()]
    assert len(trained) > sum(1 for _ in net.parameters()) / 2
    net.eval()
    with torch.no_grad():
        first = net(x)
        assert torch.equal(net(x), first)
        assert torch.allclose(net(x[:, :1]), first[:, :1], atol=1e-5)  # and another batch size is no matter


@pytest.mark.parametrize("name", SMALL)
def test_every_neuron_is_ours_with_an_order_of_its_own_and_every_weight_quantized(name: str) -> None:
    *_, layers, kind = SMALL[name]
    orders = [1 + i % T for i in range(layers)]
    net = build(name, order=tuple(orders))
    assert [m.kernel.taps.shape[0] for m in net.modules() if isinstance(m, kind)] == orders
    synapses = [m for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    assert [m.weight_bits for m in synapses] == [8, *[1] * (len(synapses) - 2), 8]
    for other in (layers + 1, layers - 1):
        with pytest.raises(ConfigError, match=rf"neuron.order .* one for each of the {layers} layers"):
            build(name, order=(1,) * other)


@pytest.mark.parametrize("name", SMALL)
def test_the_integer_network_gives_the_scores_of_the_torch_network(name: str) -> None:
    net, x = build(name), example(name)
    for _ in range(3):
        net(x)  # averages of the batch norms
    if SMALL[name][3] is not MFPLeakyParallel:  # whose spikes are float32, as snnTorch's are
        net, x = net.double(), x.double()
    model = Readout(net, T).eval()
    with torch.no_grad():
        expected = model(x)
    scores = torch.as_tensor(deploy.lower(model, x, levels=1).run(x))
    torch.testing.assert_close(scores, expected.double(), rtol=1e-5, atol=1e-6)


def test_scores_that_are_counts_agree_in_a_stream_too() -> None:
    net = build("fashion-mnist-net", threshold=0.1).eval()  # averages of ten neurons: their unit is 1/10
    images = torch.randint(0, 256, (6, 1, 28, 28), dtype=torch.uint8)
    split = Split(images, torch.arange(6))
    data = Data(split, split, split, classes=10, reading="repeat", time_steps=T, scale=255.0)
    model = Readout(net, T).eval()
    network = deploy.lower(model, data.sequence(images[:1]), levels=255)
    assert "give the same scores to the last bit" in agreement(Deployed(model, network, data))


@pytest.mark.parametrize("kind", ["lif", "sliding-psn", "exp"])
def test_other_neurons_take_the_same_places(kind: str) -> None:
    for name in ("resnet19", "fashion-mnist-net", "snntorch-fcn"):
        net = build(name, kind=kind, kernel_bits=0, order=0 if kind == "lif" else 2)
        assert net(example(name)).shape == (T, 2, 10)


@pytest.mark.parametrize(
    ("name", "features", "words"),
    [
        ("fashion-mnist-net", (1, 32, 32), r"\[1, 28, 28\]"),
        ("nmnist-net", (2, 28, 28), r"\[2, 34, 34\]"),
        ("vggsnn", (2, 12, 12), "16 x 16"),
        ("resnet19", (28,), r"\[C, H, W\]"),
        ("snntorch-csnn", (1, 8, 8), "16 x 16"),
        ("spiking-vgg11-bn", (1, 28, 28), "32 x 32"),
        ("sew-resnet18", (28,), r"\[C, H, W\]"),
        ("resnet20", (1, 8, 8), r"resnet19.*'module:function'"),
        ("no_such_module:build", (1, 8, 8), "no_such_module"),
    ],
)
def test_an_unknown_name_or_an_input_that_does_not_fit_is_refused(
    name: str, features: tuple, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        network.build(NetworkConfig(architecture=name), features, 10, T)


def test_settings_that_an_architecture_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"order = 3.*in hidden layer 0: a 'lif' neuron"):
        build("resnet19", kind="lif", order=3, kernel_bits=0)
    with pytest.raises(ConfigError, match=r"network.hidden = \(8,\) is a setting of architecture 'blocks'"):
        from_dict({"network": {"architecture": "resnet19", "hidden": [8]}})
    with pytest.raises(ConfigError, match=r"network.options .*'depth'.*accepts width"):
        network.build(NetworkConfig(architecture="resnet19", options={"depth": 3}), (1, 8, 8), 10, T)


def drawn(neuron: MFP) -> MFP:
    """The neuron with taps of its history and of its own spikes drawn at random."""
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.copy_(
                2.0 ** torch.randint(-3, 1, parameter.shape) * torch.randn(parameter.shape).sign()
            )
    return neuron


@pytest.mark.parametrize("convert", [as_node, as_leaky])
def test_a_neuron_of_a_framework_sees_the_own_spikes_that_the_mfp_sees(convert) -> None:
    torch.manual_seed(0)
    mfp = MFP(kernel="fir", order=3, num_channels=4, kernel_bits="pow2", reset="feedback", reset_order=2)
    x = torch.randn(12, 5, 4)
    neuron = convert(drawn(mfp))
    if convert is as_leaky:  # which has taps of its own, that start alike
        with torch.no_grad():
            neuron.kernel.taps.copy_(mfp.kernel.taps)
            neuron.feedback.taps.copy_(mfp.feedback.taps)
    spikes = mfp(x)
    assert torch.equal(neuron(x), spikes)
    assert not torch.equal(MFP(kernel="fir", order=3, num_channels=4)(x), spikes)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_node_has_the_reset_of_its_mfp_and_a_leaky_neuron_refuses_it(reset: str) -> None:
    torch.manual_seed(0)
    mfp = MFP(kernel="exp", order=4, decay=0.5, reset=reset)
    x = 2 * torch.rand(12, 5, 4)
    assert torch.equal(as_node(mfp)(x), mfp(x))
    with pytest.raises(ValueError, match=f"got .*{reset}.*detach_reset=False"):
        as_leaky(mfp)


@pytest.mark.parametrize("name", ["fashion-mnist-net", "snntorch-csnn", "resnet19"])
def test_networks_whose_neurons_see_their_own_spikes_are_lowered(name: str) -> None:
    net = build(name, feedback=2, detach_reset=False)
    with torch.no_grad():
        for path, parameter in net.named_parameters():
            if path.endswith("feedback.taps"):
                parameter.fill_(-0.5)
    x = example(name)
    model = Readout(net, T).eval()
    scores = deploy.lower(model, x, levels=1).run(x)
    torch.testing.assert_close(torch.as_tensor(scores, dtype=torch.float32), model(x).detach())


def test_feedback_without_gradients_is_refused_in_the_place_of_snntorchs_neurons() -> None:
    with pytest.raises(ConfigError, match="detach_reset=True"):
        build("snntorch-csnn", feedback=2, detach_reset=True)


def linear(features, classes, time_steps, neurons):  # a builder as a user writes one
    return nn.Sequential(nn.Flatten(2), nn.Linear(features[-1], classes), neurons(classes))


def test_a_builder_of_ones_own_is_named_by_module_and_function() -> None:
    net = network.build(NetworkConfig(architecture=f"{__name__}:linear"), (1, 6), 4, T)
    assert net(torch.rand(T, 2, 1, 6)).shape == (T, 2, 4)
    assert net[2].kernel.num_channels == 4


@pytest.mark.parametrize("name", ["resnet19", "vggsnn", "snntorch-csnn"])
def test_an_image_shown_at_every_step_gives_what_its_copies_give(name: str) -> None:
    net = build(name)
    still = example(name)[:1].expand(T, -1, -1, -1, -1)
    copies = still.contiguous()
    torch.testing.assert_close(net(still), net(copies))
    net.eval()
    torch.testing.assert_close(net(still), net(copies))
