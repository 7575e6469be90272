"""Attention on spikes, and masks: products of spikes are whole numbers, against float64 autograd's."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based.layer.attention import SpikingSelfAttention
from spikingjelly.activation_based.model import (
    maxformer,
    ms_resnet,
    qkformer,
    sew_resnet,
    spike_driven_transformer,
    spikformer,
)
from torch import Tensor, nn

from mfp_neurons import quantize_weights
from mfp_neurons.deploy import LoweringError, lower
from mfp_neurons.deploy.graph import Neurons
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.spikingjelly import MFPNode

from .lowering import Do, Each, neuron
from .oracle import Agreement, agree, unrounded

T = 3


def node(**options):
    return MFPNode(tau=2.0, order=3, v_threshold=0.3, kernel_bits="pow2")


def trained(model: nn.Module, bits: float = 3) -> nn.Module:
    """Quantized, with statistics of batch norms as they are after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.05, 0.5)
                module.weight.normal_(0.5, 0.7)
                module.bias.normal_(0, 0.3)
    return quantize_weights(model, bits).eval()


def kinds(agreement: Agreement) -> Counter[str]:
    return Counter(type(op).__name__ for op in agreement.graph.ops)


def images() -> Tensor:
    return torch.randint(
        0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def events() -> Tensor:
    return torch.rand(T, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.3


SMALL = {"T": T, "num_classes": 5, "spiking_neuron": node}
STAGES = {"embed_dims": 32, "depths": (1, 1, 1), "mlp_ratio": 2}
TINY = {"base_channels": 8, "stem_kernel_size": 3, "stem_stride": 1}
MODELS = {
    "Spikformer": lambda: spikformer.Spikformer(
        img_size_h=16, img_size_w=16, patch_size=4, embed_dims=16, num_heads=2, depths=2, **SMALL
    ),
    "QKFormer": lambda: qkformer.QKFormer(num_heads=(2, 2, 2), **STAGES, **SMALL),
    "QKFormer by channels": lambda: qkformer.QKFormer(
        num_heads=(2, 2, 2), qka_type="channel", **STAGES, **SMALL
    ),
    "SpikeDrivenTransformer": lambda: spike_driven_transformer.SpikeDrivenTransformer(
        embed_dims=16, num_heads=2, depths=3, mlp_ratio=1, pooling_stat="0011", **SMALL
    ),
    "MaxFormer": lambda: maxformer.MaxFormer(**STAGES, **SMALL),
    "MaxFormer for CIFAR": lambda: maxformer.MaxFormer(cifar=True, **STAGES, **SMALL),
    "MSResNet": lambda: ms_resnet.MSResNet(**TINY, **SMALL),
    "MaxResNet": lambda: ms_resnet.MaxResNet(layers=(3, 3, 2), stage_channels=(8, 12, 16), **TINY, **SMALL),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_of_the_zoo_fire_as_in_float64(name):
    agreement = agree(trained(MODELS[name]()), images(), 255)
    assert agreement.undecided < agreement.spikes / 1000
    assert sum(agreement.rates.values()) / len(agreement.rates) > 0.1, "few spikes test little"
    operations = kinds(agreement)
    assert operations["Product"] or operations["MatMul"] or operations["Currents"]


@pytest.mark.parametrize("name", ["Spikformer", "QKFormer", "SpikeDrivenTransformer", "MSResNet"])
def test_and_so_they_do_on_sequences_of_events(name):
    agreement = agree(trained(MODELS[name](), 1.58), events(), 1)
    assert agreement.undecided < agreement.spikes / 1000


def test_attention_alone_is_exact():
    agreement = agree(trained(MODELS["Spikformer"]()), images(), 255)
    errors = [op.error.max() for op in agreement.graph.ops if type(op).__name__ == "Neurons"]
    assert max(errors) == 0 and agreement.undecided == 0


def test_operations_of_a_spikformer_are_those_counted_by_hand():
    model = trained(MODELS["Spikformer"]())
    plain = unrounded(model)
    additions = multiplications = 0

    def synapses(layer: nn.Module, x: Tensor) -> int:
        """Numbers times the weights that are not 0 and that they reach."""
        counting = deepcopy(layer)
        counting.weight.copy_(layer.weight != 0)
        counting.bias = None
        return int(counting.forward(x).sum())  # without the hook that calls this

    def of_layer(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal additions, multiplications
        (x,) = inputs
        if layer is plain.patch_embed.stages[0].conv_bn.block[0]:
            multiplications += synapses(layer, (x > 0).double())  # levels of an image
        elif layer is plain.head:
            additions += synapses(layer, 16 * x)  # a mean of counts over 4 x 4 places
        else:
            additions += synapses(layer, x)  # spikes, and sums of spikes

    def of_attention(layer: SpikingSelfAttention, qkv: Tensor) -> None:
        nonlocal additions, multiplications
        q, k, v = qkv.unflatten(2, (3, layer.num_heads, -1)).unbind(2)  # [T, N, heads, features, places]
        additions += int((k.sum(3) * v.sum(3)).sum())  # at every place each spike of v meets each of k
        vk = v @ k.transpose(-2, -1)
        additions += int(((vk > 0).double().sum(3) * q.sum(4)).sum())
        multiplications += int(((vk @ q) > 0).sum())  # and what comes out meets the scale

    for module in plain.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.register_forward_hook(of_layer)
        if isinstance(module, SpikingSelfAttention):
            module.qkv_lif.register_forward_hook(
                lambda _, inputs, qkv, layer=module: of_attention(layer, qkv)
            )
    with torch.no_grad():
        plain(images().double() / 255)
    found = lower(model, images()[:1]).run_events(images())
    assert (found.synaptic_operations, found.multiply_accumulates) == (additions, multiplications)


@pytest.mark.parametrize("function", ["ADD", "AND", "IAND"])
def test_residual_functions_of_sew_networks(function):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(Each(nn.Conv2d(3, 4, 3, padding=1)), neuron())
            self.second = nn.Sequential(Each(nn.Conv2d(4, 4, 3, padding=1)), neuron())
            self.last = nn.Linear(4 * 256, 3)

        def forward(self, x):
            x = self.first(x)
            x = sew_resnet.sew_function(x, self.second(x), function)
            return self.last(x.flatten(2)).mean(0)

    agreement = agree(trained(Residual()), events(), 1)
    assert agreement.undecided == 0
    assert kinds(agreement)["Product"] == (function != "ADD")


class Attention(nn.Module):
    """Spikes from linear layers, multiplied in one of the ways that people write."""

    def __init__(self, heads: int, width: int, length: int, way: str, scale: float) -> None:
        super().__init__()
        inner = heads * width
        self.heads, self.way, self.scale = heads, way, scale
        self.q, self.k, self.v = (nn.Sequential(nn.Linear(6, inner), neuron(0.2)) for _ in range(3))
        self.fire = neuron(0.5)
        self.last = nn.Linear(length * inner, 3)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(2, 3)  # [T, N, heads, L, width]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        match self.way:
            case "(q k) v":
                y = (q @ k.transpose(-1, -2)) @ v
            case "q (k v)":
                y = q @ torch.matmul(k.mT, v)
            case "einsum":
                y = torch.einsum("tbhnd,tbhmd->tbhnm", q, k)
                y = torch.einsum("tbhnm,tbhmd->tbhnd", y, v)
            case "mask of tokens":
                y = q * (k * v).sum(-2, keepdim=True)
            case "mask of channels":
                y = (q.sum(-1, keepdim=True) + k.sum(-1, keepdim=True)) * v
            case _:
                y = q * (1 - k) * v
        y = self.fire(y * self.scale).transpose(2, 3).flatten(-2)
        return self.last(y.flatten(2)).mean(0)


WAYS = ["(q k) v", "q (k v)", "einsum", "mask of tokens", "mask of channels", "gate"]


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from([1, 0.125, 0.3]),
    st.integers(0, 99),
)
@pytest.mark.parametrize("way", WAYS)
def test_small_attention_written_in_any_way(way, heads, width, length, scale, seed):
    model = trained(Attention(heads, width, length, way, scale))
    x = torch.rand(T, 2, length, 6, generator=torch.Generator().manual_seed(seed)) < 0.5
    agreement = agree(model, x, 1)  # undecided are ties, of which counts times 1/8 have some
    assert max(op.error.max() for op in agreement.graph.ops if isinstance(op, Neurons)) == 0


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: torch.einsum("tnij,tmij->tnm", x, x), "Rows and columns are features"),
        (lambda x: torch.bmm(x.flatten(0, 2)[..., None], x.flatten(0, 2)[:, None]), "dimensions of their"),
        (lambda x: x @ torch.ones(4, 3), "Use a Linear module"),
        (lambda x: x.mean(0) * x.mean(0), "reduced over time"),
    ],
)
def test_products_over_time_or_samples_are_refused(forward, words):
    with pytest.raises(LoweringError, match=words):
        lower_graph(Do(forward), torch.ones(T, 2, 5, 4))


def test_products_beyond_what_a_map_holds_are_refused():
    with pytest.raises(LoweringError, match="neuron in front of it, or pool"):
        lower_graph(Do(lambda x: (x * x * x * x).flatten(2)), torch.full((T, 2, 4), 200, dtype=torch.uint8))
