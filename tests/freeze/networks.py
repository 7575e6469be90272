"""The zoo's networks as they are shipped, those of the examples, and ways that users write networks."""

import importlib
import logging
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, TimePool, convert, quantize_weights, report, zoo
from mfp_neurons.nir import to_nir
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

from . import exports
from .book import Book

T = 3
LIF: dict[str, Any] = {
    "tau": 2.0,
    "v_threshold": 0.25,
    "surrogate_function": surrogate.ATan(),
    "detach_reset": True,
}


def record(book: Book, quick: bool = False) -> None:
    logging.getLogger("mfp_neurons").setLevel(logging.ERROR)
    for name in zoo.list():
        if not (quick and name == "fashion-mnist-net"):
            _record_shipped(book, name)
    for name, (make, example) in CASES.items():
        torch.manual_seed(0)
        exports.record(book, name, as_if_trained(make(), example), example, interpreted=False)


def _record_shipped(book: Book, name: str) -> None:
    """A network of the zoo on inputs of its own kind."""
    trained, case = zoo.load(name), f"zoo {name}"
    facts = trained.facts
    generator = torch.Generator().manual_seed(0)
    shape = (facts.time_steps, 2, *facts.features)
    levels = torch.randint(0, int(facts.scale) + 1, shape, generator=generator)
    if facts.scale == 1:
        levels = (torch.rand(shape, generator=generator) < 0.1).long()
    x = levels / facts.scale
    book.put(case, "card", f"{trained.card}\n")
    book.put(case, "model", f"{trained.model}\n")
    lines = [f"{key}: {exports.digest(value)}" for key, value in trained.model.state_dict().items()]
    book.put(case, "state", "\n".join(lines))
    with torch.no_grad():
        book.put(case, "scores", trained.model(x))
    book.put(case, "refused", repr(trained.refused))
    book.attempt(case, "report", lambda: str(report(trained.model, x[:, :1])))
    if len(facts.features) < 3:
        book.attempt(case, "nir", lambda: exports.nir_text(to_nir(trained.model, x[:, :1])))
    if trained.refused is None:
        exports.record_network(book, case, trained.network, x, interpreted=False, largest_events=5_000)


# --- models ------------------------------------------------------------------------------------------------


class Do(nn.Module):
    """A model whose forward is given; its layers are arguments."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(x, *self.layers)


class MeanOverTime(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).mean(0)


class EachStep(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def image(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def events(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.3


def as_if_trained(net: nn.Module, example: Tensor) -> nn.Module:
    """Batch norms get the statistics of the input and gammas of both signs."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain average
            nn.init.normal_(module.weight, 0.5, 0.8)
            nn.init.normal_(module.bias, 0.2, 0.5)
    with torch.no_grad():
        net.train()(example.float() / (255 if example.dtype == torch.uint8 else 1))
    functional.reset_net(net)
    return net.eval()


def jelly(module: str, name: str, bits: float = 1, **arguments: Any) -> nn.Module:
    """A model of SpikingJelly's with our neurons."""
    options = {"spiking_neuron": MFPNode, "order": 2, "kernel_bits": "pow2", **LIF, **arguments}
    model = importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    net = getattr(model, name)(**options)
    functional.set_step_mode(net, "m")
    return MeanOverTime(quantize_weights(net, bits))


def converted(**options: Any) -> nn.Module:
    """LIFs of SpikingJelly, converted."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(layer.Conv2d(1, 6, 3, padding=1, bias=False), layer.BatchNorm2d(6), neuron.IFNode()),
        layer.MaxPool2d(2, 2),
        *(
            layer.Conv2d(6, 6, 3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.LIFNode(v_threshold=0.5),
        ),
        *(layer.AvgPool2d(2, 2), layer.Flatten(), layer.Linear(54, 20, bias=False)),
        *(neuron.ParametricLIFNode(v_threshold=0.3), layer.VotingLayer(2)),
    )
    functional.set_step_mode(net, "m")
    bits = options.pop("bits", 1)
    return MeanOverTime(quantize_weights(convert(net, **options), bits))


def vgg11() -> nn.Module:
    model = importlib.import_module("spikingjelly.activation_based.model.spiking_vgg")
    cfg = [4 * n if n != "M" else n for n in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")]
    norms = {"batch_norm": True, "norm_layer": layer.BatchNorm2d, "init_weights": False}
    net = model.SpikingVGG(cfg, **norms, spiking_neuron=MFPNode, order=2, **LIF)
    net.features[0] = layer.Conv2d(1, 4, 3, padding=1)
    net.avgpool, net.classifier = layer.AdaptiveAvgPool2d(1), layer.Linear(32, 10)
    functional.set_step_mode(net, "m")
    return quantize_weights(net, 1)


def resnet(module: str, block: Any, **options: Any) -> nn.Module:
    """One block a stage, few channels, gray pixels."""
    model = importlib.import_module(f"spikingjelly.activation_based.model.{module}")
    kind = model.SEWResNet if module == "sew_resnet" else model.SpikingResNet
    net = kind(
        getattr(model, block), [1, 1, 1, 1], num_classes=10, spiking_neuron=MFPNode, order=2, **LIF, **options
    )
    net.conv1 = layer.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    functional.set_step_mode(net, "m")
    return quantize_weights(net, 1)


def ms_resnet() -> nn.Module:
    model = importlib.import_module("spikingjelly.activation_based.model.ms_resnet")
    net = model.MSResNet(
        *(), T=T, in_channels=1, num_classes=10, layers=(1, 1, 1, 1), base_channels=4,
        spiking_neuron=MFPNode, order=2, **LIF,
    )  # fmt: skip
    return quantize_weights(net, 1)


def spikformer() -> nn.Module:
    model = importlib.import_module("spikingjelly.activation_based.model.spikformer")
    image = {"in_channels": 1, "img_size_h": 8, "img_size_w": 8, "patch_size": 4, "num_classes": 10}
    shape = {"T": T, "embed_dims": 16, "num_heads": 2, "depths": 1}
    return quantize_weights(model.Spikformer(**image, **shape, spiking_neuron=MFPNode, order=2, **LIF), 1)


class MembraneBlock(nn.Module):
    """MS-ResNet: x + norm(conv(neuron(norm(conv(neuron(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for _ in range(2):
            self.body.append(MFPNode(order=2, v_threshold=0.25, step_mode="m"))
            self.body.append(layer.Conv2d(channels, channels, 3, padding=1, bias=False, step_mode="m"))
            self.body.append(layer.BatchNorm2d(channels, step_mode="m"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def membrane_resnet() -> nn.Module:
    stem = layer.Conv2d(3, 8, 3, padding=1, step_mode="m"), layer.BatchNorm2d(8, step_mode="m")
    last = MFPNode(order=2, step_mode="m"), layer.AdaptiveAvgPool2d(1, step_mode="m")
    head = nn.Flatten(2), layer.Linear(8, 10, step_mode="m")
    net = nn.Sequential(*stem, *(MembraneBlock(8) for _ in range(3)), *last, *head)
    return MeanOverTime(quantize_weights(net, 1))


class Steps(nn.Module):
    """snnTorch's tutorial 5: the loop over time."""

    def __init__(self, returned: str = "mem", **options: Any) -> None:
        super().__init__()
        self.fc1, self.lif1 = (
            nn.Linear(16, 20),
            MFPLeaky(beta=0.5, order=3, kernel_bits="pow2", threshold=0.2),
        )
        self.fc2, self.lif2 = nn.Linear(20, 4), MFPLeaky(beta=0.5, threshold=0.1, **options)
        self.returned = returned
        quantize_weights(self, 2)

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2, kept = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x.flatten(2):
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            kept.append(mem2 if self.returned == "mem" else spk2)
        return torch.stack(kept)


def leaky(**options: Any) -> nn.Module:
    usual = {"beta": 0.5, "threshold": 0.1, "init_hidden": True, "kernel_bits": "pow2", "order": 4}
    return MFPLeakyParallel(**{**usual, **options})


def tutorial_6() -> nn.Module:
    return quantize_weights(
        nn.Sequential(
            *(EachStep(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2)), leaky()),
            *(EachStep(nn.Conv2d(4, 8, 5), nn.MaxPool2d(2)), leaky()),
            EachStep(nn.Flatten(), nn.Linear(8, 10)),
        ),
        bits=1,
    )


def tutorial_7() -> nn.Module:
    return quantize_weights(
        nn.Sequential(
            *(EachStep(nn.Conv2d(2, 4, 5)), leaky()),
            *(EachStep(nn.MaxPool2d(2), nn.Conv2d(4, 8, 5)), leaky()),
            EachStep(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 10)),
        ),
        bits=1,
    )


def binarized() -> nn.Module:
    return quantize_weights(
        nn.Sequential(
            *(EachStep(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.MaxPool2d(2)), leaky()),
            *(EachStep(nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.MaxPool2d(2)), leaky()),
            EachStep(nn.Flatten(), nn.Linear(8, 10)),
        ),
        *(1,), first=1, last=1,
    )  # fmt: skip


class Vote(nn.Module):
    def forward(self, spikes: Tensor) -> Tensor:
        return spikes.unflatten(2, (10, -1)).mean(3)


def population() -> nn.Module:
    layers = nn.Flatten(2), nn.Linear(64, 32), leaky(order=1), nn.Linear(32, 50), leaky(order=1), Vote()
    return quantize_weights(nn.Sequential(*layers), bits=1, first=1, last=1)


def regression() -> nn.Module:
    def free() -> nn.Module:
        return leaky(beta=0.5, kernel="fir", order=16, num_channels=24)

    layers = nn.Linear(1, 24), free(), nn.Linear(24, 24), free(), nn.Linear(24, 1)
    return quantize_weights(nn.Sequential(*layers), bits=1)


def digits() -> nn.Module:
    layers = [
        *(nn.Linear(8, 32), MFP(order=1, v_threshold=0.3)),
        *(
            nn.Linear(32, 32),
            MFP(kernel="fir", order=8, num_channels=32, kernel_bits="pow2", v_threshold=0.3),
        ),
        nn.Linear(32, 10),
    ]
    return quantize_weights(nn.Sequential(*layers), bits=1)


def rows() -> nn.Module:
    def taps() -> nn.Module:
        return MFPNode(4.0, kernel="fir", order=8, num_channels=16, kernel_bits="pow2", v_threshold=0.3)

    layers = [
        *(layer.Linear(8, 16, bias=False), layer.BatchNorm1d(16), taps()),
        *(layer.Linear(16, 16, bias=False), layer.BatchNorm1d(16), taps()),
        layer.Linear(16, 10),
    ]
    net = nn.Sequential(*layers)
    functional.set_step_mode(net, "m")
    return quantize_weights(net, bits=1)


class StaticImage(nn.Module):
    """SpikingJelly's tutorial: the first synapse sees the image once, its neurons T times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer.Conv2d(1, 6, 3, padding=1, bias=False), layer.BatchNorm2d(6))
        self.body = nn.Sequential(
            MFPNode(2.0, order=4, kernel_bits="pow2"),
            layer.MaxPool2d(2, 2),
            *(layer.Flatten(), layer.Linear(6 * 36, 20, bias=False)),
            *(MFPNode(2.0, order=4, kernel_bits="pow2", v_threshold=0.1), layer.VotingLayer(2)),
        )
        functional.set_step_mode(self.body, "m")

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x).unsqueeze(0).repeat(T, 1, 1, 1, 1)).mean(0)


def two_returns() -> nn.Module:
    """snnTorch's way with whole sequences: neurons return (spk, mem), or spikes alone."""

    def forward(x: Tensor, a: Any, one: Any, b: Any, two: Any, c: Any, three: Any) -> Tensor:
        spikes, _ = one(a(x.flatten(2)))
        spikes, _mem = two(b(spikes))
        return three(c(spikes)).sum(0)

    options: dict[str, Any] = {"init_hidden": False}
    neurons = leaky(**options), leaky(threshold=torch.linspace(0.1, 0.4, 16), **options), leaky()
    synapses = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 4)
    every = [module for pair in zip(synapses, neurons, strict=True) for module in pair]
    return quantize_weights(Do(forward, *every))


def pooled_over_time() -> nn.Module:
    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.2), MFP(0.5, order=2, v_threshold=0.2)
    layers = nn.Linear(6, 12), fire[0], TimePool(2), nn.Linear(12, 8), fire[1], TimePool(2), nn.Linear(8, 3)
    return quantize_weights(nn.Sequential(*layers), 1.58)


def state_leaky() -> nn.Module:
    net = nn.Sequential(nn.Linear(12, 16), snn.StateLeaky(beta=0.6, channels=16, output=True))
    net = convert(net, order=4, kernel_bits="pow2", init_hidden=True, output=False, threshold=0.2)
    return quantize_weights(nn.Sequential(*net, nn.Linear(16, 3)))


READ: dict[str, Callable[[Tensor], Tensor]] = {
    "sum over a number": lambda y: y.sum(0) / 4,
    "last three": lambda y: y[-3:].mean(0),
    "last by number": lambda y: y[-1:].mean(0),
    "reshaped": lambda y: y.reshape(y.shape[0], -1, 3).mean(0),
    "sum over T": lambda y: y.sum(0) / y.shape[0],
    "offset of T": lambda y: y.mean(0) + y.size(0),
    "half of the steps": lambda y: y[-(len(y) // 2) :].mean(0),
    "at most ten": lambda y: y[-min(len(y), 10) :].mean(0),
    "branch": lambda y: y.mean(0) if len(y) < 10 else y.sum(0),
}


def read(how: Callable[[Tensor], Tensor]) -> nn.Module:
    def forward(x: Tensor, a: Any, fire: Any, out: Any) -> Tensor:
        return how(out(fire(a(x))))

    fire = MFP(0.5, v_threshold=0.1, order=3, kernel_bits="pow2")
    return quantize_weights(Do(forward, nn.Linear(6, 5), fire, nn.Linear(5, 3, bias=False)), 3)


PLIF = "parametric_lif_net"
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mfp_qsnn_resnet19": (lambda: zoo.mfp_qsnn_resnet19(1, 10, width=4), image(2, 2, 1, 8, 8)),
    "mfp_qsnn_resnet19 orders": (
        lambda: zoo.mfp_qsnn_resnet19(3, 5, width=4, order=[1] * 9 + [3] * 9, weight_bits=1.58),
        image(3, 2, 3, 8, 8),
    ),
    "mfp_qsnn_vggsnn": (lambda: zoo.mfp_qsnn_vggsnn((2, 16, 16), width=4), events(4, 2, 2, 16, 16)),
    "mfp_qsnn_vggsnn 4 bits": (
        lambda: zoo.mfp_qsnn_vggsnn((2, 16, 16), 3, width=2, weight_bits=4, order=2),
        events(4, 2, 2, 16, 16),
    ),
    "MNISTNet": (lambda: jelly(PLIF, "MNISTNet", channels=2), image(T, 2, 1, 28, 28)),
    "FashionMNISTNet": (lambda: jelly(PLIF, "FashionMNISTNet", channels=4), image(T, 2, 1, 28, 28)),
    "FashionMNISTNet 4 bits, fir": (
        lambda: jelly(PLIF, "FashionMNISTNet", 4, channels=2, kernel="fir", order=3),
        image(T, 2, 1, 28, 28),
    ),
    "NMNISTNet": (lambda: jelly(PLIF, "NMNISTNet", channels=2), events(T, 1, 2, 34, 34)),
    "vgg11_bn": (vgg11, image(T, 1, 1, 32, 32)),
    "spiking_resnet": (lambda: resnet("spiking_resnet", "BasicBlock"), image(T, 1, 1, 16, 16)),
    "sew_resnet": (lambda: resnet("sew_resnet", "BasicBlock", cnf="ADD"), image(T, 1, 1, 16, 16)),
    "ms_resnet": (ms_resnet, image(T, 1, 1, 16, 16)),
    "spikformer": (spikformer, image(T, 1, 1, 8, 8)),
    "membrane_resnet": (membrane_resnet, image(T, 2, 3, 12, 12)),
    "converted": (lambda: converted(order=2, kernel_bits="pow2"), image(T, 2, 1, 12, 12)),
    "converted fused": (lambda: converted(order=2, kernel_bits="pow2", fuse=True), image(T, 2, 1, 12, 12)),
    "converted fir": (
        lambda: converted(kernel="fir", order=3, kernel_bits="pow2", num_channels="auto", bits=1.58),
        image(T, 2, 1, 12, 12),
    ),
    "converted orders": (
        lambda: converted(order=[1, 2, 3], kernel_bits=4, bits=2),
        image(T, 2, 1, 12, 12),
    ),
    "converted without an order": (lambda: converted(), image(T, 2, 1, 12, 12)),
    "static image": (lambda: quantize_weights(StaticImage()), image(2, 1, 12, 12)),
    "rows": (rows, image(8, 2, 8)),
    "digits": (digits, image(8, 2, 8)),
    "steps, mem": (Steps, events(5, 2, 16)),
    "steps, spikes": (lambda: Steps("spk", order=2), events(5, 2, 16)),
    "tutorial 6": (tutorial_6, image(4, 1, 1, 16, 16)),
    "tutorial 7": (tutorial_7, events(4, 1, 2, 16, 16)),
    "binarized": (binarized, image(4, 2, 1, 12, 12)),
    "population": (population, image(1, 2, 1, 8, 8)),
    "regression": (regression, image(20, 2, 1)),
    "two returns": (two_returns, image(6, 2, 3, 4)),
    "state leaky": (state_leaky, events(6, 2, 12)),
    "pooled over time": (pooled_over_time, events(8, 2, 6)),
    **{f"reads {name}": (lambda how=how: read(how), events(4, 2, 6)) for name, how in READ.items()},
}
