"""What quantize_weights does to a model, what it refuses, and what goes on working afterwards."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from mfp_neurons.quantize import codes, is_quantized, materialize, quantize_weights

BITS = [1, 1.58, 2, 4, 8]


class Folding(nn.Linear):
    """A layer whose forward does something of its own and hands on to torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).relu()


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2, dilation=2), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular"), (2, 3, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, padding="same"), (2, 2, 3, 4, 3)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, groups=2, dilation=2), (2, 4, 5)),
    "transposed2d": (lambda: nn.ConvTranspose2d(3, 5, 3, 2, padding=1, output_padding=1), (2, 3, 4, 4)),
    "transposed3d": (lambda: nn.ConvTranspose3d(4, 4, (1, 2, 3), groups=4), (2, 4, 3, 4, 3)),
    "subclass": (lambda: Folding(8, 3), (2, 2, 4)),
}
layers = pytest.mark.parametrize("name", LAYERS)
widths = pytest.mark.parametrize("bits", BITS)


def made(name: str, bits: float) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[name]
    return quantize_weights(make(), bits), torch.randn(shape)


def network() -> nn.Sequential:
    convolutions = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten()
    return nn.Sequential(*convolutions, nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8)


def width_of(model: nn.Module) -> list[float | None]:
    return [getattr(m, "weight_bits", None) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def learned(layer: nn.Module) -> nn.Module:
    """The layer after some made-up training: steps that are not 1."""
    for name, p in layer.named_parameters():
        if name.endswith("weight_step"):
            p.uniform_(0.5, 1.5)
    return layer


# --- forward ---


@layers
@widths
def test_a_layer_computes_with_codes_times_scale_and_every_parameter_gets_a_gradient(
    name: str, bits: float
) -> None:
    layer, x = made(name, bits)
    learned(layer)
    plain = LAYERS[name][0]()
    plain.load_state_dict({"weight": (codes(layer).codes * codes(layer).scale), "bias": layer.bias})
    y = layer(x)
    assert torch.equal(y, plain(x))
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in layer.parameters())


@widths
def test_a_small_network_learns(bits: float) -> None:
    x = torch.randn(64, 8)
    target = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    quantize_weights(model, bits, first=bits, last=bits)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@widths
@pytest.mark.parametrize("groups", [1, 2, 4])
@torch.no_grad()
def test_a_transposed_convolution_has_the_codes_of_the_convolution_that_it_is_the_gradient_of(
    bits: float, groups: int
) -> None:
    """One scale for each channel that it gives: of the twin, for each that it takes."""
    layer, channels = nn.ConvTranspose2d(4, 8, (3, 2), groups=groups), 8 // groups
    for o in range(8):  # channels of unlike sizes
        layer.weight[(o // channels) * 4 // groups :, o % channels] *= o + 1
    rows = [layer.weight[(o // channels) * 4 // groups :][: 4 // groups, o % channels] for o in range(8)]
    twin = nn.Conv2d(4, 8, (3, 2), groups=groups)
    twin.weight.copy_(torch.stack(rows))
    for one in (layer, twin):
        quantize_weights(one, bits)
    if bits not in (1, 1.58):
        layer.weight_step.copy_(torch.rand(8, 1, 1, 1) + 0.5)
        twin.weight_step.copy_(layer.weight_step)
    read, expected = codes(layer), codes(twin)
    assert read.codes.shape == layer.weight.shape
    assert torch.equal(read.codes * read.scale, layer.quantized_weight())
    for o in range(8):
        inputs = slice((o // channels) * 4 // groups, (o // channels + 1) * 4 // groups)
        assert torch.equal(read.codes[inputs, o % channels], expected.codes[o])
        scales = (read.scale if groups == 1 else read.scale[inputs])[:, o % channels]
        torch.testing.assert_close(scales, expected.scale[o].expand_as(scales), rtol=1e-6, atol=0)


def test_a_norm_is_folded_into_a_transposed_convolution_or_refused() -> None:
    conv, bn = nn.ConvTranspose2d(2, 3, 2).eval(), nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([0.5, 2.0, 3.0]))
    x = torch.randn(2, 2, 4, 4)
    layer = quantize_weights(conv, 1.58)
    expected = bn(layer(x))
    torch.testing.assert_close(fuse_conv_bn_eval(layer, bn, transpose=True)(x), expected)
    quantize_weights(layer, 1)
    with torch.no_grad():
        bn.weight[1] = -2
        conv.weight[0, 1, 0, 0] = 0
    with pytest.raises(ValueError, match=r"channels \[1\] of this .*one bit has no zero"):
        fuse_conv_bn_eval(layer, bn, transpose=True)


# --- the layer stays what it was ---


@layers
@widths
def test_class_parameters_hooks_and_state_dict_keys_stay(name: str, bits: float) -> None:
    make, shape = LAYERS[name]
    layer, outputs = make(), []
    layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    before, weight = type(layer), layer.weight
    assert quantize_weights(layer, bits) is layer
    assert isinstance(layer, before) and layer.weight is weight
    out = layer.bias.shape[0]
    added = {} if bits in (1, 1.58) else {"weight_step": out}
    sizes = {key: p.numel() for key, p in layer.named_parameters()}
    assert sizes == {"weight": weight.numel(), "bias": layer.bias.numel()} | added
    assert all(p.shape[0] == out for p in layer.parameters() if p is not weight)  # FSDP shards this dimension
    assert list(layer.state_dict()) == [*sizes, "_extra_state"]
    assert f"weight_bits={bits}" in repr(layer)
    x = torch.randn(shape)
    y = torch.func.functional_call(layer, layer.state_dict(), (x,))
    assert outputs == [y] and torch.equal(y, layer(x))


def without(state: dict[str, Tensor], *endings: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(endings)}


@pytest.mark.parametrize("theirs", [None, *BITS], ids=lambda bits: str(bits or "float"))
@widths
def test_a_checkpoint_loads_unless_it_says_that_it_has_other_bits(bits: float, theirs: float | None) -> None:
    model, other = learned(quantize_weights(network(), bits)), network()
    if theirs is not None:
        quantize_weights(other, theirs)
    state = other.state_dict()
    if theirs not in (None, bits):
        words = f"2.weight: it has {theirs} bits in the checkpoint and {bits} in"
        for strict in (True, False):
            with pytest.raises(RuntimeError, match=words):
                model.load_state_dict(state, strict=strict)
        state = without(state, "_extra_state", "weight_step")  # its float weights alone
    keys = list(state)
    model.load_state_dict(state, strict=True)
    assert list(state) == keys  # the caller's dict has not grown
    x = images()
    assert torch.equal(model(x), quantize_weights(other, bits)(x))  # the step starts anew


@pytest.mark.parametrize("left_out", [(), ("_extra_state",)], ids=["now", "before the bits were kept"])
@widths
def test_a_quantized_checkpoint_loads_strictly_with_its_steps(bits: float, left_out: Any) -> None:
    model, other = learned(quantize_weights(network(), bits)), quantize_weights(network(), bits)
    other.load_state_dict(without(model.state_dict(), *left_out), strict=True)
    x = images()
    assert torch.equal(model(x), other(x))


def test_a_checkpoint_without_the_weight_still_misses_it() -> None:
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        quantize_weights(nn.Linear(2, 2), 4).load_state_dict({"bias": torch.zeros(2)})


def test_a_model_on_meta_takes_a_float_checkpoint_by_assignment() -> None:
    trained = nn.Linear(3, 2).state_dict()
    with torch.device("meta"):
        layer = quantize_weights(nn.Linear(3, 2), 4)
    layer.load_state_dict(trained, assign=True)
    assert layer(torch.ones(1, 3)).device.type == "cpu"


@widths
def test_a_float_layer_does_not_take_a_quantized_checkpoint_for_its_own(bits: float) -> None:
    state = quantize_weights(nn.Linear(4, 3), bits).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*_extra_state"):
        nn.Linear(4, 3).load_state_dict(state)


@widths
def test_a_checkpoint_in_sixteen_bits_still_says_its_bits(bits: float) -> None:
    quantized = quantize_weights(nn.Linear(4, 3), bits).state_dict()
    state = {name: value.half() for name, value in quantized.items()}
    quantize_weights(nn.Linear(4, 3), bits).load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match=f"{bits} bits in the checkpoint and 3"):
        quantize_weights(nn.Linear(4, 3), 3).load_state_dict(state)


def by_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, by_pickle])
@layers
@widths
def test_copies_and_pickles_are_the_same_layer(name: str, bits: float, copied: Callable[[Any], Any]) -> None:
    layer, x = made(name, bits)
    again = copied(learned(layer))
    assert type(again) is type(layer) and again is not layer and again.weight_bits == bits
    assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize("bits", [(1, 1.58), (2, 2), (4, 8), (8, 1)])
def test_layers_compile_to_one_graph_with_dynamic_shapes_and_the_same_gradients(
    bits: tuple[float, float],
) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), Folding(16, 3))
    twin = copy.deepcopy(quantize_weights(model, first=bits[0], last=bits[1]))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch in (2, 5):
        x = torch.randn(batch, 1, 4, 4)
        y, expected = compiled(x), twin(x)
        assert torch.equal(y, expected)
        y.square().sum().backward()
        expected.square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_replicas_of_data_parallel_hold_their_parameters_as_attributes() -> None:
    """nn.DataParallel empties the parameter dict of each replica and sets plain tensors in their place."""
    layer, x = made("linear", 4)
    replica = layer._replicate_for_data_parallel()
    replica._parameters = {}
    for name, p in layer.named_parameters():
        setattr(replica, name, p.detach() * 1)
    assert torch.equal(replica(x), layer(x))


# --- weights shared by several layers ---


@widths
def test_layers_that_share_a_weight_share_its_quantization(bits: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    quantize_weights(model, bits, first=bits, last=bits)
    assert model[0].weight is model[2].weight
    assert len(list(model.parameters())) == 3 + (bits not in (1, 1.58))
    for tied in (copy.deepcopy(model), by_pickle(model)):
        assert tied[0].weight is tied[2].weight
    plain = materialize(learned(model))
    assert plain[0].weight is plain[2].weight
    x = torch.randn(3, 4)
    assert torch.equal(plain(x), model(x))


def test_one_weight_at_two_widths_has_a_step_for_each() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    quantize_weights(model, first=8, last=4)
    plain = materialize(model)
    assert model[0].weight_step is not model[1].weight_step and plain[0].weight is not plain[1].weight


@pytest.mark.parametrize(("skip", "bits"), [((), 1), ("1", None), ("3", None)])
def test_a_layer_used_twice_is_one_layer_with_two_paths(skip: Any, bits: float | None) -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 4))
    assert width_of(quantize_weights(model, 1, skip=skip)) == [8, bits, 8]


# --- which layers ---


def test_first_and_last_keep_eight_bits_unless_told() -> None:
    assert width_of(quantize_weights(network(), 1)) == [8, 1, 1, 8]
    assert width_of(quantize_weights(network(), "ternary", first=4, last=1)) == [4, 1.58, 1.58, 1]
    assert width_of(quantize_weights(network(), 2, first=None, last=None)) == [None, 2, 2, None]
    assert width_of(quantize_weights(nn.Sequential(nn.Linear(2, 2)), 1, first=3, last=4)) == [3]
    assert width_of(quantize_weights(nn.Linear(2, 2), 1)) == [1]


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        ("body.2", [8, None, 1, 1, 8]),
        (("body.0", "body.4"), [None, 1, None, 1, 8]),
        (("body.[24]",), [8, None, None, 1, 8]),
        (nn.Conv2d, [None, None, 1, 1, 8]),
        ((nn.Conv2d, "head"), [None, None, 1, 1, None]),
        ("body", [None, None, None, None, 8]),
        (nn.Embedding, [8, 1, 1, 1, 8]),
        ("*", [None] * 5),
    ],
)
def test_skip_takes_paths_globs_and_classes_with_all_inside(skip: Any, expected: list[float | None]) -> None:
    model = nn.ModuleDict({"body": network(), "head": nn.Linear(3, 2)})
    assert width_of(quantize_weights(model, 1, skip=skip)) == expected


def test_layers_of_other_kinds_are_left_alone() -> None:
    others = [nn.Embedding(4, 2), nn.LSTM(2, 2), nn.Bilinear(2, 2, 2)]
    before = [type(m) for m in others]
    quantize_weights(nn.ModuleList([*others, nn.Linear(2, 2)]), 1)
    assert [type(m) for m in others] == before
    assert not any(map(is_quantized, others))


def test_other_bits_replace_the_old_and_the_same_bits_keep_what_was_learned() -> None:
    layer = quantize_weights(nn.Linear(6, 4), 4)
    weight, step = layer.weight, layer.weight_step
    learned(layer)
    assert quantize_weights(layer, 4).weight_step is step
    quantize_weights(layer, 1)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    quantize_weights(layer, 8)
    assert layer.weight_step is not step and bool((layer.weight_step == 1).all())
    assert layer.weight is weight and type(layer) is type(quantize_weights(nn.Linear(2, 2), 1))


# --- what is refused, with nothing changed ---


class Standardizing(nn.Conv2d):
    """A layer that computes with a weight of its own making."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class StandardizingInside(nn.Conv2d):
    """The same, where torch's forward would not notice."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.weight / 2, bias)


class Detouring(nn.Linear):
    """A layer whose forward never comes to torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return self.detour(x)

    def detour(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


class Stateful(nn.Linear):
    """A layer that uses the one place in the state dict where the bits would go."""

    def get_extra_state(self) -> str:
        return "mine"


def patched() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = layer.forward  # as tools do that wrap the forward of a single object
    return layer


@pytest.mark.filterwarnings("ignore:.*initializing zero-element")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: parametrizations.spectral_norm(nn.Linear(4, 4)), "parametrization"),
        (lambda: prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5), "pruned by a mask.*prune.remove"),
        (lambda: Stateful(4, 4), "extra state of its own"),
        (lambda: nn.LazyLinear(4), "UninitializedParameter"),
        (lambda: nn.Conv2d(2, 2, 3, dtype=torch.complex64), "complex64"),
        (lambda: nn.Linear(0, 4), r"empty, shape \(4, 0\)"),
        (lambda: Detouring(2, 2), "Detouring uses its weight"),
        (lambda: Standardizing(2, 2, 3), "Standardizing uses its weight"),
        (lambda: StandardizingInside(2, 2, 3), "StandardizingInside uses its weight"),
        (patched, "forward of its own"),
        (lambda: nn.MultiheadAttention(4, 2), "attention"),
        (lambda: nn.TransformerEncoderLayer(4, 2, batch_first=True), "attention"),
    ],
)
def test_a_layer_that_cannot_be_quantized_is_named_and_nothing_changes(make: Any, words: str) -> None:
    odd = make()
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), odd, nn.Linear(4, 4))
    with pytest.raises(ValueError, match=f"'2.*cannot be quantized.*{words}"):
        quantize_weights(model, 4)
    assert [type(m) for m in model] == [nn.Linear, nn.Linear, type(odd), nn.Linear]
    assert len(list(model[0].parameters())) == 2
    quantize_weights(model, 4, skip="2")
    assert [m.weight_bits for m in model if m is not odd] == [8, 4, 8]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bits": 9}, ValueError, "bits must be .* got 9"),
        ({"bits": 1.5}, ValueError, "bits must be .* got 1.5"),
        ({"bits": True}, ValueError, "bits must be .* got True"),
        ({"bits": None}, ValueError, "bits must be .* got None"),
        ({"bits": "two"}, ValueError, "bits must be .* got 'two'"),
        ({"first": 0}, ValueError, "first must be .* got 0"),
        ({"last": float("nan")}, ValueError, "last must be .* got nan"),
        ({"skip": "fc3"}, ValueError, "no module called 'fc3'; the closest is 'fc1'"),
        ({"skip": ("fc1", "conv*")}, ValueError, r"no module called 'conv\*'"),
        ({"skip": 3}, TypeError, "skip must .* got 3"),
        ({"skip": [nn.Linear(1, 1)]}, TypeError, "skip must hold .* got a Linear"),
        ({"skip": int}, TypeError, "skip must hold .* got <class 'int'>"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_changes(arguments: Any, error: Any, words: str) -> None:
    model = nn.Sequential()
    model.add_module("fc1", nn.Linear(2, 2))
    model.add_module("head", nn.Linear(2, 2))
    with pytest.raises(error, match=words):
        quantize_weights(model, **{"bits": 1, **arguments})
    assert width_of(model) == [None, None]


def test_what_is_no_model_has_no_layer_or_is_not_quantized_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be .* got list"):
        quantize_weights([nn.Linear(2, 2)])  # type: ignore[type-var]
    with pytest.raises(ValueError, match="has no convolution and no Linear"):
        quantize_weights(nn.ReLU())
    with pytest.raises(TypeError, match=r"Linear.*not quantized"):
        codes(nn.Linear(2, 2))
    assert not is_quantized(nn.Linear(2, 2))


# --- zeros, and factors of -1 ---


@widths
@torch.no_grad()
def test_pruned_weights_are_zero_or_refused(bits: float) -> None:
    layer = quantize_weights(nn.Linear(4, 1, bias=False), bits)
    layer.weight.copy_(torch.tensor([[-1.0, -1.0, 0.1, 0.1]]))
    prune.l1_unstructured(layer, "weight", amount=2)
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0]])  # reaches the pruned weights alone
    if bits == 1:
        for use in (layer, lambda x: codes(layer)):
            with pytest.raises(ValueError, match=r"pruned by a mask.*1.58 bits"):
                use(x)
        return
    assert layer(x).item() == 0
    plain = materialize(layer)
    assert torch.equal(plain(x), layer(x)) and list(plain.state_dict()) == ["weight"]


@pytest.mark.parametrize(
    "hook",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
        torch.nn.utils.weight_norm,
        torch.nn.utils.spectral_norm,
    ],
    ids=["pruned", "weight norm", "spectral norm"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_codes_are_those_of_the_next_forward_where_a_hook_computes_the_weight(hook: Any) -> None:
    layer = hook(quantize_weights(nn.Linear(8, 4, bias=False), 4))
    layer(torch.rand(2, 8))
    with torch.no_grad():
        for parameter in layer.parameters():  # a step of an optimizer, or a checkpoint
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    held, state = layer.weight, {key: value.clone() for key, value in layer.state_dict().items()}
    read = codes(layer)
    assert layer.training and layer.weight is held
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    torch.testing.assert_close(layer.eval()(torch.eye(8)).T, read.codes * read.scale)


@pytest.mark.parametrize("before", [8, None])
def test_one_bit_refuses_weights_and_checkpoints_with_zeros_from_pruning(before: float | None) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(64, 4), nn.Linear(4, 4))
    prune.remove(prune.l1_unstructured(model[1], "weight", amount=0.4), "weight")
    if before is not None:
        quantize_weights(model, before)
    kept = width_of(model)
    with pytest.raises(ValueError, match=r"'1' cannot be quantized: 40% of it is exactly 0.*1.58 bits"):
        quantize_weights(model, 1)
    assert width_of(model) == kept
    with pytest.raises(RuntimeError, match="weight: 40% of it is exactly 0"):
        quantize_weights(nn.Linear(64, 4), 1).load_state_dict(without(model[1].state_dict(), "_extra_state"))
    zero = model[1].weight == 0
    assert not codes(quantize_weights(model, 1.58)[1]).codes[zero].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_bit_takes_random_weights_and_channels_of_zeros(dtype: torch.dtype) -> None:
    layer = nn.Linear(1000, 50, dtype=dtype)
    nn.init.zeros_(layer.weight[:40])
    assert quantize_weights(layer, 1).weight_bits == 1


FOLDS = {"linear": fuse_linear_bn_eval, "conv1d": fuse_conv_bn_eval, "conv2d": fuse_conv_bn_eval}


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("gamma", [1.0, -1.0, -0.37])
@widths
def test_a_folded_batch_norm_gives_the_same_output_or_is_refused(
    name: str, gamma: float, bits: float
) -> None:
    layer, x = made(name, bits)
    layer.eval()
    kind = {"linear": nn.BatchNorm1d, "conv1d": nn.BatchNorm1d, "conv2d": nn.BatchNorm2d}[name]
    norm = kind(layer.weight.shape[0]).eval()
    with torch.no_grad():
        norm.weight.fill_(gamma)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        layer.weight.flatten(1)[:, 0] = -9 * layer.weight.abs().max()  # code -2 of 2 bits
    expected = norm(layer(x))
    torch.testing.assert_close(FOLDS[name](materialize(layer), norm)(x), expected)
    if bits == 2 and gamma < 0:
        with pytest.raises(ValueError, match=r"-2 has no opposite.*materialize"):
            FOLDS[name](layer, norm)
        return
    torch.testing.assert_close(FOLDS[name](layer, norm)(x), expected)


def test_a_zero_of_one_bit_has_no_opposite_either() -> None:
    layer = quantize_weights(nn.Linear(3, 2, bias=False), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 1.0, -1.0], [0.5, 1.0, -1.0]]))
    with pytest.raises(ValueError, match=r"channels \[0\].*one bit has no zero"):
        layer.weight = nn.Parameter(-layer.weight)
    layer.weight = nn.Parameter(layer.weight * torch.tensor([[1.0], [-1.0]]))
    assert codes(layer).codes.tolist() == [[1, 1, -1], [-1, -1, 1]]


@pytest.mark.parametrize("bits", [1, 2])
def test_new_weights_and_tied_ones_can_be_set(bits: float) -> None:
    layer, other = quantize_weights(nn.Linear(8, 4), bits), nn.Linear(8, 4)
    layer.weight = other.weight
    assert layer.weight is other.weight
    layer.load_state_dict(nn.Linear(8, 4).state_dict(), assign=True)


# --- NaN ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("what", "bits"), [*(("weight", bits) for bits in BITS), ("weight_step", 2), ("weight_step", 8)]
)
def test_what_is_no_number_shows_in_its_channel_alone_and_has_no_codes(
    what: str, bits: float, value: float
) -> None:
    layer = quantize_weights(nn.Linear(3, 2), bits)
    before = layer.quantized_weight()
    layer.get_parameter(what).data[0, 0] = value
    after = layer.quantized_weight()
    assert not bool(after[0].isfinite().any()) and torch.equal(after[1], before[1])
    with pytest.raises(ValueError, match="NaN or infinity"):
        codes(layer)


# --- materialize ---


def test_materialize_copies_a_model_after_a_step_of_training() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.record = nn.Linear(3, 2), []

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.fc(x)
            self.record.append(self.last)
            return self.last

    model = quantize_weights(Holds())
    model(torch.rand(4, 3)).sum().backward()
    plain = materialize(model)
    assert torch.equal(plain.last, model.last) and plain.record[0] is plain.last
    assert model.last.grad_fn is not None and plain.training


@widths
def test_materialize_gives_plain_layers_with_the_same_output_and_leaves_the_model(bits: float) -> None:
    model = learned(quantize_weights(network(), bits))
    state, x = copy.deepcopy(model.state_dict()), images()
    plain = materialize(model)
    assert [type(m) for m in plain] == [type(m) for m in network()]
    assert list(plain.state_dict()) == list(network().state_dict())
    assert vars(plain[0]).keys() == vars(network()[0]).keys()
    assert torch.equal(plain(x), model(x))
    assert width_of(model) == [8, bits, bits, 8]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    plain[2].weight.data.zero_()
    assert bool(model[2].weight.any())


def test_frozen_weights_stay_frozen_and_others_can_be_trained() -> None:
    frozen = nn.Linear(3, 2)
    frozen.weight.requires_grad_(False)
    quantize_weights(frozen, 4)
    assert not frozen.weight_step.requires_grad
    plain = materialize(nn.Sequential(frozen, quantize_weights(nn.Linear(2, 2), 4)))
    assert [m.weight.requires_grad for m in plain] == [False, True]
    assert all(m.weight.is_leaf for m in plain)
