"""Networks as SpikingJelly's zoo and examples and snnTorch's tutorials publish them, with few channels.

Each entry of ``NETWORKS`` builds one with the framework's own neurons, and an example of its input. Layers,
their order and the forward are the original's; where a constructor takes widths, sizes or depths, they are
small, so that all of them are tried in minutes.
"""

import importlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import snntorch as snn
import torch
from snntorch import surrogate as leaky_surrogate
from snntorch import utils
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

STEPS = 4


@dataclass(frozen=True)
class Published:
    """One network.

    Attributes:
        name: how the table calls it.
        build: the network.
        example: makes a random input of a generator: float, of 0 and 1 or in [0, 1].
        kernel_bits: what its decays are rounded to where they are no fractions of a power of two.
        steps: of a model that takes one step a call and whose loop stands outside.
        is_large: takes seconds; the test of it is a slow one.
    """

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[torch.Generator], Tensor]
    kernel_bits: int | str | None = None
    steps: int | None = None
    is_large: bool = False


def images(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randint(0, 256, shape, generator=generator) / 255


def events(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: (torch.rand(*shape, generator=generator) < 0.3).float()


# --- SpikingJelly: the zoo ----------------------------------------------------------------------------------

LIF = {"spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), "detach_reset": True}


def zoo(module: str, name: str, /, *arguments: Any, **options: Any) -> nn.Module:
    found = importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    net: nn.Module = getattr(found, name)(*arguments, **options)
    functional.set_step_mode(net, "m")
    return net


def parametric(name: str) -> nn.Module:
    options = {**LIF, "spiking_neuron": neuron.ParametricLIFNode, "init_tau": 2.0}
    return zoo("parametric_lif_net", name, channels=4, **options)


def residual(module: str, name: str, **options: Any) -> nn.Module:
    return zoo(module, name, num_classes=10, **LIF, **options)


def small_vgg(batch_norm: bool) -> Any:
    widths = [8, "M", 16, "M", 16, 16, "M", 16, 16, "M", 16, 16, "M"]
    norms = {"norm_layer": layer.BatchNorm2d} if batch_norm else {}
    net: Any = zoo("spiking_vgg", "SpikingVGG", widths, batch_norm, num_classes=10, **norms, **LIF)
    net.classifier[0] = layer.Linear(16 * 7 * 7, 32, step_mode="m")
    net.classifier[3] = layer.Linear(32, 32, step_mode="m")
    net.classifier[6] = layer.Linear(32, 10, step_mode="m")
    return net


def online_vgg(weight_standardization: bool) -> nn.Module:
    found = importlib.import_module("spikingjelly.activation_based.model.spiking_vggws_ottt")
    net: nn.Module = found.OTTTSpikingVGG(
        cfg=[8, 8, "M", 512],
        weight_standardization=weight_standardization,
        num_classes=10,
        spiking_neuron=neuron.OTTTLIFNode,
    )
    return net


def searched(cell: str) -> nn.Module:
    options = Namespace(
        timestep=STEPS, second_avgpooling=2, dataset="cifar10", celltype=cell, threshold=1.0, tau=4 / 3
    )
    links = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 4], [0, 0, 0, 2], [0, 0, 0, 0]])
    found = importlib.import_module("spikingjelly.activation_based.model.snas_net")
    net: nn.Module = found.SNASNet(options, links)
    return net


def searched_by_gradient() -> nn.Module:
    options = Namespace(fea_step=3, fea_num_layers=8, fea_block_multiplier=3, fea_filter_multiplier=48)
    return zoo("spike_dhs", "SpikeDHS", init_channels=3, args=options)


TRANSFORMER = {"T": STEPS, "num_classes": 10, **LIF}


# --- SpikingJelly: examples ---------------------------------------------------------------------------------


class FullyConnected(nn.Module):
    """lif_fc_mnist: one layer, one step a call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            layer.Flatten(),
            layer.Linear(28 * 28, 10, bias=False),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
        )

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


def example(module: str, name: str, *arguments: Any) -> nn.Module:
    found = importlib.import_module(f"spikingjelly.activation_based.examples.{module}")
    net: nn.Module = getattr(found, name)(*arguments)
    return net


class Sequential(nn.Module):
    """rsnn_sequential_fmnist: a picture column by column, [T, N, 28]; ``middle`` differs."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            layer.Linear(28, 32),
            *middle,
            layer.Linear(32, 10),
            neuron.IFNode(surrogate_function=surrogate.ATan()),
        )
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Any:
        return self.fc(x).mean(0)


def integrate() -> nn.Module:
    return neuron.IFNode(surrogate_function=surrogate.ATan(), detach_reset=True)


def recurrent_linear() -> nn.Module:
    return Sequential(layer.LinearRecurrentContainer(integrate(), in_features=32, out_features=32))


def recurrent_element_wise() -> nn.Module:
    return Sequential(layer.ElementWiseRecurrentContainer(integrate(), lambda x, y: x + y))


class Gesture(nn.Module):
    """classify_dvsg: DVSGestureNet behind a voting layer, spikes averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = parametric("DVSGestureNet")

    def forward(self, x: Tensor) -> Any:
        return self.net(x).mean(0)


# --- snnTorch: tutorials ------------------------------------------------------------------------------------


class Tutorial(nn.Module):
    """Tutorials 3 and 5: a loop in forward, records stacked, spikes and potentials returned."""

    def __init__(self, beta: float = 0.95, inputs: int = 28 * 28, hidden: int = 64) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.lif1 = snn.Leaky(beta=beta)
        self.fc2 = nn.Linear(hidden, 10)
        self.lif2 = snn.Leaky(beta=beta)

    def forward(self, x: Tensor) -> Any:
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for _ in range(STEPS):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class TutorialOverTime(Tutorial):
    """Tutorials 3 and 5 on spike trains [T, N, 784]."""

    def forward(self, x: Tensor) -> Any:
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for step in range(x.size(0)):
            spk1, mem1 = self.lif1(self.fc1(x[step]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Lapicque(nn.Module):
    """Tutorial 2: one neuron of the resistor and the capacitor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lif = snn.Lapicque(R=5.1, C=5e-3, time_step=1e-3)

    def forward(self, x: Tensor) -> Any:
        mem = self.lif.init_lapicque()
        spikes, potentials = [], []
        for step in range(x.size(0)):
            spk, mem = self.lif(self.fc(x[step]), mem)
            spikes.append(spk)
            potentials.append(mem)
        return torch.stack(spikes), torch.stack(potentials)


class SecondOrder(nn.Module):
    """Tutorial 4: currents that decay, and potentials."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 32)
        self.lif1 = snn.Synaptic(alpha=0.9, beta=0.8)
        self.fc2 = nn.Linear(32, 10)
        self.lif2 = snn.Synaptic(alpha=0.9, beta=0.8)

    def forward(self, x: Tensor) -> Any:
        syn1, mem1 = self.lif1.init_synaptic()
        syn2, mem2 = self.lif2.init_synaptic()
        spikes = []
        for step in range(x.size(0)):
            spk1, syn1, mem1 = self.lif1(self.fc1(x[step]), syn1, mem1)
            spk2, syn2, mem2 = self.lif2(self.fc2(spk1), syn2, mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


class Convolutional(nn.Module):
    """Tutorial 6: the network as a class, its loop inside."""

    def __init__(self) -> None:
        super().__init__()
        grad = leaky_surrogate.fast_sigmoid(slope=25)
        self.conv1 = nn.Conv2d(1, 4, 5)
        self.lif1 = snn.Leaky(beta=0.5, spike_grad=grad)
        self.conv2 = nn.Conv2d(4, 8, 5)
        self.lif2 = snn.Leaky(beta=0.5, spike_grad=grad)
        self.fc1 = nn.Linear(8 * 4 * 4, 10)
        self.lif3 = snn.Leaky(beta=0.5, spike_grad=grad)

    def forward(self, x: Tensor) -> Any:
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        mem3 = self.lif3.init_leaky()
        spk3_rec = []
        mem3_rec = []
        for _ in range(STEPS):
            cur1 = nn.functional.max_pool2d(self.conv1(x), 2)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = nn.functional.max_pool2d(self.conv2(spk1), 2)
            spk2, mem2 = self.lif2(cur2, mem2)
            cur3 = self.fc1(spk2.view(x.size(0), -1))
            spk3, mem3 = self.lif3(cur3, mem3)
            spk3_rec.append(spk3)
            mem3_rec.append(mem3)
        return torch.stack(spk3_rec), torch.stack(mem3_rec)


def hidden_states(*, channels: int = 1, size: int = 28, beta: float = 0.5) -> nn.Sequential:
    """Tutorials 6 and 7: one step a call, and the potentials in the neurons."""
    leaky = partial(snn.Leaky, beta=beta, spike_grad=leaky_surrogate.fast_sigmoid(slope=25), init_hidden=True)
    left = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 4, 5),
        nn.MaxPool2d(2),
        leaky(),
        nn.Conv2d(4, 8, 5),
        nn.MaxPool2d(2),
        leaky(),
        nn.Flatten(),
        nn.Linear(8 * left * left, 10),
        leaky(output=True),
    )


class ForwardPass(nn.Module):
    """The loop that tutorials 6 and 7 have outside of the network, as a module."""

    def __init__(self, net: nn.Module, repeats: int | None = None) -> None:
        super().__init__()
        self.net, self.repeats = net, repeats

    def forward(self, data: Tensor) -> Any:
        spk_rec, mem_rec = [], []
        utils.reset(self.net)
        for step in range(self.repeats or data.size(0)):
            spk_out, mem_out = self.net(data if self.repeats else data[step])
            spk_rec.append(spk_out)
            mem_rec.append(mem_out)
        return torch.stack(spk_rec), torch.stack(mem_rec)


def population() -> nn.Module:
    """The tutorial on population codes: 50 neurons for 10 classes."""
    leaky = partial(snn.Leaky, beta=0.9, spike_grad=leaky_surrogate.fast_sigmoid(), init_hidden=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 32), leaky(), nn.Linear(32, 50), leaky(output=True))


class Regression(nn.Module):
    """Regression, part 1: a potential that follows a curve; the last layer does not reset."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1, 16)
        self.lif1 = snn.Leaky(beta=0.9, learn_beta=True, threshold=1.0, learn_threshold=True)
        self.fc2 = nn.Linear(16, 16)
        self.lif2 = snn.Leaky(beta=0.9, learn_beta=True, threshold=1.0, learn_threshold=True)
        self.fc_out = nn.Linear(16, 1)
        self.li_out = snn.Leaky(beta=0.9, threshold=1.0, learn_beta=True, reset_mechanism="none")

    def forward(self, x: Tensor) -> Any:
        mem_1 = self.lif1.init_leaky()
        mem_2 = self.lif2.init_leaky()
        mem_3 = self.li_out.init_leaky()
        mem_3_rec = []
        for step in range(x.size(0)):
            cur_1 = self.fc1(x[step])
            spk_1, mem_1 = self.lif1(cur_1, mem_1)
            cur_2 = self.fc2(spk_1)
            spk_2, mem_2 = self.lif2(cur_2, mem_2)
            cur_3 = self.fc_out(spk_2)
            _, mem_3 = self.li_out(cur_3, mem_3)
            mem_3_rec.append(mem_3)
        return torch.stack(mem_3_rec)


class RecurrentClassifier(nn.Module):
    """Regression, part 2: a recurrent neuron in the hidden layer, classes from the last potential."""

    def __init__(self, all_to_all: bool = True) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 32)
        options: dict[str, Any] = (
            {"linear_features": 32} if all_to_all else {"V": torch.rand(32), "all_to_all": False}
        )
        self.rlif1 = snn.RLeaky(beta=0.5, **options)  # whose taps need no rounding
        self.fc2 = nn.Linear(32, 10)
        self.lif2 = snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Any:
        spk1, mem1 = self.rlif1.init_rleaky()
        mem2 = self.lif2.init_leaky()
        spk_rec, mem_rec = [], []
        for _ in range(STEPS):
            spk1, mem1 = self.rlif1(self.fc1(x.flatten(1)), spk1, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk_rec.append(spk2)
            mem_rec.append(mem2)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class Autoencoder(nn.Module):
    """The spiking autoencoder: convolutions down, transposed ones up."""

    def __init__(self) -> None:
        super().__init__()
        leaky = partial(snn.Leaky, beta=0.5, spike_grad=leaky_surrogate.atan(alpha=2.0), init_hidden=True)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            leaky(),
            nn.Conv2d(4, 8, 3, padding=1, stride=2),
            nn.BatchNorm2d(8),
            leaky(),
            nn.Flatten(1),
            nn.Linear(8 * 7 * 7, 16),
            leaky(),
        )
        self.linear = nn.Sequential(nn.Linear(16, 8 * 7 * 7), leaky())
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (8, 7, 7)),
            nn.ConvTranspose2d(8, 4, 3, padding=1, stride=2, output_padding=1),
            nn.BatchNorm2d(4),
            leaky(),
            nn.ConvTranspose2d(4, 1, 3, padding=1, stride=2, output_padding=1),
            leaky(reset_mechanism="none", output=True),
        )

    def forward(self, x: Tensor) -> Any:
        utils.reset(self.encoder)
        utils.reset(self.linear)
        utils.reset(self.decoder)
        spikes, potentials = [], []
        for _ in range(STEPS):
            spk, mem = self.decoder(self.linear(self.encoder(x)))
            spikes.append(spk)
            potentials.append(mem)
        return torch.stack(spikes, 2), torch.stack(potentials, 2)


# --- all of them --------------------------------------------------------------------------------------------

SMALL = images(2, 3, 32, 32)
SEQUENCE = images(STEPS, 2, 3, 32, 32)
ROUNDED: dict[str, Any] = {"kernel_bits": 8}

ZOO = [
    *(
        Published(name, partial(parametric, name), example)
        for name, example in {
            "MNISTNet": images(STEPS, 2, 1, 28, 28),
            "FashionMNISTNet": images(STEPS, 2, 1, 28, 28),
            "NMNISTNet": events(STEPS, 2, 2, 34, 34),
            "CIFAR10Net": SEQUENCE,
            "CIFAR10DVSNet": events(STEPS, 1, 2, 128, 128),
            "DVSGestureNet": events(STEPS, 1, 2, 128, 128),
        }.items()
    ),
    Published("spiking_vgg11", partial(small_vgg, False), SEQUENCE, is_large=True),
    Published("spiking_vgg11_bn", partial(small_vgg, True), SEQUENCE, is_large=True),
    *(
        Published(name, partial(residual, "spiking_resnet", name), SEQUENCE, is_large=True)
        for name in ("spiking_resnet18", "spiking_resnet50")
    ),
    *(
        Published(
            f"sew_resnet18, {cnf}",
            partial(residual, "sew_resnet", "sew_resnet18", cnf=cnf),
            SEQUENCE,
            is_large=True,
        )
        for cnf in ("ADD", "AND", "IAND")
    ),
    Published(
        "sew_resnet50, ADD",
        partial(residual, "sew_resnet", "sew_resnet50", cnf="ADD"),
        SEQUENCE,
        is_large=True,
    ),
    *(
        Published(
            name,
            partial(zoo, "ms_resnet", kind, layers=(1, 1, 1, 1), base_channels=8, **TRANSFORMER),
            SMALL,
        )
        for name, kind in {"ms_resnet18": "MSResNet", "max_resnet18": "MaxResNet"}.items()
    ),
    Published(
        "spikformer",
        partial(
            zoo,
            "spikformer",
            "Spikformer",
            img_size_h=32,
            img_size_w=32,
            patch_size=4,
            embed_dims=32,
            num_heads=4,
            depths=2,
            **TRANSFORMER,
        ),
        SMALL,
    ),
    Published(
        "qkformer, token",
        partial(
            zoo, "qkformer", "QKFormer", embed_dims=32, num_heads=(1, 2, 4), depths=(1, 1, 1), **TRANSFORMER
        ),
        SMALL,
    ),
    Published(
        "qkformer, channel",
        partial(
            zoo,
            "qkformer",
            "QKFormer",
            embed_dims=32,
            num_heads=(1, 2, 4),
            depths=(1, 1, 1),
            qka_type="channel",
            **TRANSFORMER,
        ),
        SMALL,
    ),
    Published(
        "spike_driven_transformer",
        partial(
            zoo,
            "spike_driven_transformer",
            "SpikeDrivenTransformer",
            embed_dims=32,
            num_heads=4,
            depths=2,
            pooling_stat="1100",
            **TRANSFORMER,
        ),
        SMALL,
    ),
    Published(
        "maxformer",
        partial(zoo, "maxformer", "MaxFormer", embed_dims=32, depths=(1, 1, 1), **TRANSFORMER),
        images(2, 3, 64, 64),
    ),
    Published(
        "maxformer_cifar",
        partial(zoo, "maxformer", "MaxFormer", embed_dims=32, depths=(1, 1, 1), cifar=True, **TRANSFORMER),
        SMALL,
    ),
    Published(
        "masnn",
        partial(
            zoo,
            "masnn",
            "MASNN",
            T=STEPS,
            num_classes=10,
            channels=(8, 8, 8),
            fc_hidden=16,
            reduction_t=2,
            **LIF,
        ),
        events(STEPS, 2, 2, 32, 32),
    ),
    Published(
        "att_ms_resnet18",
        partial(zoo, "masnn", "AttMSResNet", layers=(1, 1, 1, 1), base_channels=8, **TRANSFORMER),
        SMALL,
    ),
    Published("OTTT VGG", partial(online_vgg, False), images(2, 3, 32, 32), steps=STEPS),
    Published("OTTT VGG, weights standardized", partial(online_vgg, True), images(2, 3, 32, 32), steps=STEPS),
    Published("SNASNet, forward", partial(searched, "forward"), SMALL, is_large=True),
    Published("SNASNet, backward", partial(searched, "backward"), SMALL, is_large=True),
    Published("SpikeDHS", searched_by_gradient, images(1, 3, 32, 32), is_large=True, **ROUNDED),
]

EXAMPLES = [
    Published("lif_fc_mnist", FullyConnected, events(2, 1, 28, 28), steps=STEPS),
    Published(
        "conv_fashion_mnist: CSNN",
        partial(example, "conv_fashion_mnist", "CSNN", STEPS, 8),
        images(2, 1, 28, 28),
    ),
    Published("classify_dvsg", Gesture, events(STEPS, 1, 2, 128, 128)),
    Published("rsnn_sequential_fmnist: PlainNet", lambda: Sequential(integrate()), images(28, 2, 28)),
    Published(
        "rsnn_sequential_fmnist: StatefulSynapseNet",
        lambda: Sequential(integrate(), layer.SynapseFilter(tau=2.0, learnable=True)),
        images(28, 2, 28),
    ),
    Published("rsnn_sequential_fmnist: FeedBackNet", recurrent_linear, images(28, 2, 28)),
    Published("ElementWiseRecurrentContainer", recurrent_element_wise, images(28, 2, 28)),
]

PICTURE = images(2, 1, 28, 28)
TUTORIALS = [
    Published("2: Lapicque", Lapicque, events(STEPS, 2, 4), **ROUNDED),
    Published("3: spike trains", TutorialOverTime, events(STEPS, 2, 784), **ROUNDED),
    Published("4: Synaptic", SecondOrder, events(STEPS, 2, 784), **ROUNDED),
    Published("5: fully connected", Tutorial, images(2, 784), **ROUNDED),
    Published("6: convolutional, class", Convolutional, PICTURE),
    Published("6: Sequential, loop outside", hidden_states, PICTURE, steps=STEPS),
    Published("6: Sequential, forward_pass", lambda: ForwardPass(hidden_states(), STEPS), PICTURE),
    Published(
        "7: N-MNIST, loop outside",
        lambda: hidden_states(channels=2, size=34),
        events(2, 2, 34, 34),
        steps=STEPS,
    ),
    Published(
        "7: N-MNIST, forward_pass",
        lambda: ForwardPass(hidden_states(channels=2, size=34)),
        events(STEPS, 2, 2, 34, 34),
    ),
    Published("population codes", population, PICTURE, steps=STEPS, **ROUNDED),
    Published("population codes, forward_pass", lambda: ForwardPass(population(), STEPS), PICTURE, **ROUNDED),
    Published("regression 1: Leaky", Regression, images(STEPS, 2, 1), **ROUNDED),
    Published("regression 2: RLeaky, all to all", RecurrentClassifier, PICTURE, **ROUNDED),
    Published("regression 2: RLeaky, one to one", lambda: RecurrentClassifier(False), PICTURE, **ROUNDED),
    Published("autoencoder", Autoencoder, PICTURE),
]

NETWORKS = {
    "SpikingJelly's zoo": ZOO,
    "SpikingJelly's examples": EXAMPLES,
    "snnTorch's tutorials": TUTORIALS,
}
