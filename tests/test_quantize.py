"""What quantize_weights does to a model, what it refuses, and what goes on working afterwards."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from mfp_neurons import quantize
from mfp_neurons.quantize import codes, is_quantized, materialize, quantize_weights

BITS = [1, 1.58, 2, 4, 8]


class Folding(nn.Linear):
    """A layer whose forward does something of its own and hands on to torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).relu()


class Standardizing(nn.Conv2d):
    """A layer that computes with a weight of its own making."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Detouring(nn.Linear):
    """A layer whose forward never comes to torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return self.detour(x)

    def detour(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


class StandardizingInside(nn.Conv2d):
    """The same, where torch's forward would not see it."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, self.weight / 2, bias)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2, dilation=2), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular"), (2, 3, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, padding="same"), (2, 2, 3, 4, 3)),
    "subclass": (lambda: Folding(8, 3), (2, 2, 4)),
}
layers = pytest.mark.parametrize("name", LAYERS)
widths = pytest.mark.parametrize("bits", BITS)


def made(name: str, bits: float) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[name]
    return quantize_weights(make(), bits), torch.randn(shape)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def width_of(model: nn.Module) -> list[float | None]:
    return [getattr(m, "weight_bits", None) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def learned(layer: nn.Module) -> nn.Module:
    """The layer after some made-up training: steps that are not 1."""
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name.endswith("weight_step"):
                p.uniform_(0.5, 1.5)
    return layer


# --- forward ---


@layers
@widths
def test_forward_is_the_float_layer_with_the_quantized_weight(name: str, bits: float) -> None:
    layer, x = made(name, bits)
    learned(layer)
    plain = LAYERS[name][0]()
    plain.load_state_dict({"weight": (codes(layer).codes * codes(layer).scale), "bias": layer.bias})
    assert torch.equal(layer(x), plain(x))


@layers
@widths
def test_gradients_reach_every_parameter(name: str, bits: float) -> None:
    layer, x = made(name, bits)
    layer(x).square().sum().backward()
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


# --- the layer stays what it was ---


@layers
@widths
def test_class_parameters_and_state_dict_keys_stay(name: str, bits: float) -> None:
    make, _ = LAYERS[name]
    layer = make()
    before, weight = type(layer), layer.weight
    assert quantize_weights(layer, bits) is layer
    assert isinstance(layer, before) and layer.weight is weight
    added = {} if bits in (1, 1.58) else {"weight_step": weight.shape[0]}
    sizes = {key: p.numel() for key, p in layer.named_parameters()}
    assert sizes == {"weight": weight.numel(), "bias": layer.bias.numel()} | added
    assert list(layer.state_dict()) == list(sizes)
    assert f"weight_bits={bits}" in repr(layer)


@widths
def test_every_parameter_has_the_output_channel_first_and_none_is_a_scalar(bits: float) -> None:
    model = quantize_weights(network(), bits)
    for module in model.modules():
        for p in module.parameters(recurse=False):
            assert p.ndim >= 1 and p.shape[0] == module.weight.shape[0]


@widths
def test_a_float_checkpoint_loads_strictly_and_starts_the_step_anew(bits: float) -> None:
    trained = network().state_dict()
    model = learned(quantize_weights(network(), bits))
    fresh = network()
    fresh.load_state_dict(trained)
    model.load_state_dict(trained, strict=True)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(x), quantize_weights(fresh, bits)(x))
    assert list(trained) == list(network().state_dict())  # the caller's dict has not grown


@widths
def test_a_quantized_checkpoint_loads_strictly_with_its_steps(bits: float) -> None:
    model, other = learned(quantize_weights(network(), bits)), quantize_weights(network(), bits)
    other.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(2, 1, 8, 8)
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


def by_pickle(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def by_torch_save(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, by_pickle, by_torch_save])
@layers
@widths
def test_copies_and_pickles_are_the_same_layer(name: str, bits: float, copied: Callable[[Any], Any]) -> None:
    layer, x = made(name, bits)
    again = copied(learned(layer))
    assert type(again) is type(layer) and again is not layer and again.weight_bits == bits
    assert torch.equal(again(x), layer(x))


@widths
def test_an_averaged_model_follows(bits: float) -> None:
    model = quantize_weights(network(), bits)
    ema = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    ema.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    ema.update_parameters(model)
    for key, p in model.named_parameters():
        torch.testing.assert_close(ema.module.get_parameter(key), (before[key] + p) / 2)
    assert width_of(ema) == width_of(model)


@pytest.mark.parametrize("name", ["linear", "conv2d", "subclass"])
@widths
def test_it_compiles_to_one_graph_with_the_same_gradients(name: str, bits: float) -> None:
    torch._dynamo.reset()
    layer, x = made(name, bits)
    twin = copy.deepcopy(layer)
    y, compiled = twin(x), torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    compiled.square().sum().backward()
    y.square().sum().backward()
    torch.testing.assert_close(compiled, y, rtol=0, atol=0)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_an_optimizer_made_before_still_moves_a_one_bit_layer() -> None:
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    quantize_weights(layer, 1)
    before = layer.weight.detach().clone()
    layer(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def test_hooks_stay() -> None:
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    y = quantize_weights(layer, 1)(torch.ones(1, 2))
    assert seen == [y]


def test_a_frozen_weight_gets_a_frozen_step() -> None:
    layer = nn.Linear(4, 3)
    layer.weight.requires_grad_(False)
    assert not quantize_weights(layer, 4).weight_step.requires_grad


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
    assert model[0].weight_step is not model[1].weight_step
    plain = materialize(model)
    assert plain[0].weight is not plain[1].weight


def test_a_layer_used_twice_is_one_layer() -> None:
    shared = nn.Linear(4, 4)
    model = quantize_weights(nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 4)), 1)
    assert [model[0].weight_bits, model[1].weight_bits, model[4].weight_bits] == [8, 1, 8]


@pytest.mark.parametrize("path", ["1", "3"])
def test_a_layer_used_twice_is_skipped_by_either_path(path: str) -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), shared, nn.ReLU(), shared, nn.Linear(4, 4))
    assert width_of(quantize_weights(model, 1, skip=path)) == [8, None, 8]


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
        ("2", [8, None, 1, 8]),
        (("0", "4"), [None, 1, None, 8]),
        (("[24]",), [8, None, None, 8]),
        (nn.Conv2d, [None, None, 1, 8]),
        ((nn.Conv2d, "6"), [None, None, 1, None]),
        (nn.Embedding, [8, 1, 1, 8]),
        ("*", [None] * 4),
    ],
)
def test_skip_takes_paths_globs_and_classes(skip: Any, expected: list[float | None]) -> None:
    assert width_of(quantize_weights(network(), 1, skip=skip)) == expected


def test_skipping_a_container_skips_what_is_inside() -> None:
    model = nn.ModuleDict({"body": network(), "head": nn.Linear(3, 2)})
    assert width_of(quantize_weights(model, 1, skip="body")) == [None] * 4 + [8]


def test_layers_of_other_kinds_are_left_alone() -> None:
    others = [
        nn.ConvTranspose2d(2, 2, 3),
        nn.Embedding(4, 2),
        nn.LSTM(2, 2),
        nn.Bilinear(2, 2, 2),
        nn.BatchNorm1d(2),
    ]
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


def patched() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = layer.forward  # as tools do that wrap the forward of a single object
    return layer


def spectral() -> nn.Module:
    return parametrizations.spectral_norm(nn.Linear(4, 4))


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (spectral, "parametrization"),
        (pruned, "pruning"),
        (lambda: nn.LazyLinear(4), "UninitializedParameter"),
        (lambda: nn.Conv2d(2, 2, 3, dtype=torch.complex64), "complex64"),
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


@pytest.mark.filterwarnings("ignore:.*initializing zero-element")
def test_an_empty_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"empty, shape \(4, 0\)"):
        quantize_weights(nn.Linear(0, 4), 1)


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


def test_what_is_no_model_or_has_no_layer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be .* got list"):
        quantize_weights([nn.Linear(2, 2)])  # type: ignore[type-var]
    with pytest.raises(ValueError, match="has no Conv1d"):
        quantize_weights(nn.ReLU())


def test_codes_of_a_float_layer_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Linear.*not quantized"):
        codes(nn.Linear(2, 2))
    assert not is_quantized(nn.Linear(2, 2))


# --- materialize ---


@widths
def test_materialize_gives_plain_layers_with_the_same_output_and_leaves_the_model(bits: float) -> None:
    model = learned(quantize_weights(network(), bits))
    state, x = copy.deepcopy(model.state_dict()), torch.randn(2, 1, 8, 8)
    plain = materialize(model)
    assert [type(m) for m in plain] == [type(m) for m in network()]
    assert list(plain.state_dict()) == list(network().state_dict())
    assert vars(plain[0]).keys() == vars(network()[0]).keys()
    assert torch.equal(plain(x), model(x))
    assert width_of(model) == [8, bits, bits, 8]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    plain[2].weight.data.zero_()
    assert bool(model[2].weight.any())


def test_materialized_layers_are_leaves_that_can_be_trained_and_keep_frozen_ones_frozen() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    plain = materialize(nn.Sequential(quantize_weights(layer, 1), quantize_weights(nn.Linear(2, 2), 4)))
    assert [m.weight.requires_grad for m in plain] == [False, True]
    assert all(m.weight.is_leaf for m in plain)


def test_the_public_names_are_five() -> None:
    assert sorted(quantize.__all__) == ["Codes", "codes", "is_quantized", "materialize", "quantize_weights"]
