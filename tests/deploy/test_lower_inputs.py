"""A model that scales, shifts or normalizes its own input is followed exactly, or told what to do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy import LoweringError

from .lowering import Do, Each, check_agreement, images, norm, prepared
from .oracle import exact, unrounded

Before = Callable[[Tensor], Tensor]


def network(before: Before) -> nn.Module:
    """A convolution, neurons and a linear layer on [T, N, 2, 5, 5]."""

    def forward(x, first, fire, out):
        return out(fire(first(before(x))).flatten(2)).mean(0)

    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.02)
    return prepared(Do(forward, Each(nn.Conv2d(2, 3, 3)), fire, nn.Linear(27, 4)))


def fractions(levels: int = 255) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, levels + 1, (3, 2, 2, 5, 5), generator=generator).double() / levels


def whole(levels: int = 255) -> Tensor:
    return (fractions(levels) * levels).round().to(torch.uint8)


FACTORS: dict[str, Before] = {
    "/ 255": lambda x: x / 255,
    "/ 16": lambda x: x / 16,
    "/ 256": lambda x: x / 256,
    "* (1 / 255)": lambda x: x * (1 / 255),
    "(1 / 255) *": lambda x: (1 / 255) * x,
    "* 2": lambda x: x * 2,
    "torch.div": lambda x: torch.div(x, 255),
    "torch.mul by a tensor": lambda x: torch.mul(x, torch.tensor(0.25)),
    "in place": lambda x: x.clone().mul_(0.5),
    "/= 255": lambda x: x.clone().__itruediv__(255),
    "twice": lambda x: (x * 0.5) / 3,
    "behind a pool": lambda x: F.max_pool2d(x.flatten(0, 1), 3, 1, 1).unflatten(0, x.shape[:2]) / 255,
    "of a sum": lambda x: (x + x) / 255,
}


@pytest.mark.parametrize("before", FACTORS.values(), ids=FACTORS.keys())
def test_a_factor_on_an_input_of_fractions_is_followed_exactly(before: Before) -> None:
    check_agreement(network(lambda x: 8 * before(x)), fractions())


@pytest.mark.parametrize("levels", [16, 255])
@pytest.mark.parametrize("before", FACTORS.values(), ids=FACTORS.keys())
def test_a_factor_on_levels_in_integers_is_refused(before: Before, levels: int) -> None:
    with pytest.raises(LoweringError, match=rf"scales its input \(\w+\).*level / {levels} already. Leave"):
        deploy.lower(network(lambda x: before(x.float())), whole(levels), levels=levels)


def test_a_factor_of_one_and_another_dtype_are_none() -> None:
    check_agreement(network(lambda x: x.to(x.dtype) * 1.0 / 1), whole())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_factor_on_events_is_followed_exactly_in_every_dtype(dtype: torch.dtype) -> None:
    x = fractions(1)
    model = network(lambda x: x * 0.5)
    lowered = deploy.lower(model, x.to(dtype), levels=1)
    expected = exact(model)(x).detach().numpy()
    assert expected.any()
    np.testing.assert_allclose(lowered.run(x.to(torch.uint8)), expected, rtol=1e-9)


MEAN, STD = torch.tensor([0.2, 0.4]).reshape(2, 1, 1), torch.tensor([0.5, 0.25]).reshape(2, 1, 1)
NORMALIZED: dict[str, Before] = {
    "one mean and one std": lambda x: (x - 0.1307) / 0.3081,
    "a mean": lambda x: x - 0.5,
    "from -1 to 1": lambda x: x * 2 - 1,
    "in place": lambda x: x.clone().sub_(0.5).div_(0.5),
    "a std of each channel": lambda x: x / STD,
    "a mean and a std of each channel": lambda x: (x - MEAN) / STD,
    "made like the input": lambda x: (x - MEAN.float().to(x)) / STD.type_as(x).expand_as(x),
    "the other way round": lambda x: 1 - x,
    "a negative factor": lambda x: -x,
    "a channel that is left out": lambda x: x * torch.tensor([0.0, 2.0]).reshape(2, 1, 1),
    "all of it left out": lambda x: x * 0 + 0.5,
}
CONVOLUTIONS: dict[str, dict[str, int]] = {
    "without padding": {},
    "with padding": {"padding": 2, "stride": 2},
    "in groups": {"padding": 1, "groups": 2},
    "beside the last columns": {"stride": 2, "dilation": 2},
}


def normalizing(before: Before, options: dict[str, int], bits: float) -> nn.Module:
    conv = nn.Conv2d(2, 4, 3, **options)
    size = conv(torch.zeros(1, 2, 5, 5)).numel()

    def forward(x, first, fire, out):
        return out(fire(first(before(x))).flatten(2)).mean(0)

    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.02)
    return prepared(Do(forward, Each(conv), fire, nn.Linear(size, 4)), bits)


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("before", NORMALIZED.values(), ids=NORMALIZED.keys())
def test_a_model_that_normalizes_its_input_is_followed(before, options, bits) -> None:
    check_agreement(normalizing(before, options, bits), fractions())


def test_an_image_of_bytes_that_a_model_shifts_is_one_from_0_to_1() -> None:
    model = normalizing(lambda x: (x - MEAN) / STD, {"padding": 1}, 4)
    check_agreement(model, whole())


def test_without_padding_a_mean_needs_no_synapse_of_its_own() -> None:
    graph = check_agreement(normalizing(NORMALIZED["one mean and one std"], {}, 4), fractions())
    assert [type(op).__name__ for op in graph.ops] == ["Neurons", "Scores"]
    assert [len(op.synapses) for op in graph.ops] == [1, 1]
    assert not graph.ops[0].error.any()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_normalization_outside_of_the_model_is_that_of_its_input(static, channels, padding) -> None:
    mean, std = [0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels]

    def forward(x, first, fire, out):
        y = first(x) if static else first(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        y = y.unsqueeze(0).repeat(4, 1, 1, 1, 1) if static else y
        return out(fire(y).flatten(2)).mean(0)

    size = 3 * (3 + 2 * padding) ** 2
    conv = nn.Conv2d(channels, 3, 3, padding=padding)
    model = prepared(Do(forward, conv, MFP(0.5, order=2), nn.Linear(size, 2)))
    x = images(channels, 5, 5) if static else images(channels, 5, 5)[None].repeat(4, 1, 1, 1, 1)
    network = deploy.lower(model, x, mean=mean, std=torch.tensor(std))
    # a std in float32 is the number that it is there
    numbers = torch.tensor(mean, dtype=torch.float64), torch.tensor(std).double()
    rows = [row.reshape(-1, 1, 1) for row in numbers]
    expected = exact(model)((x.double() / 255 - rows[0]) / rows[1]).detach()
    assert expected.any()
    np.testing.assert_allclose(network.run(x, backend="numpy"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("option", "value"), [("mean", [0.1] * 7), ("std", 0.0), ("mean", float("nan"))])
def test_a_wrong_mean_or_std_is_named(option, value) -> None:
    with pytest.raises(ValueError, match=rf"{option} must be"):
        deploy.lower(network(lambda x: x), fractions(), **{option: value})


@pytest.mark.parametrize("value", [None, "0.5", [0.1, None], 1j, {}])
def test_a_mean_that_is_no_number_is_named(value) -> None:
    with pytest.raises(TypeError, match=r"mean must be one number, or one for each channel, got"):
        deploy.lower(network(lambda x: x), fractions(), mean=value)


def test_statistics_of_bytes_are_refused_where_levels_reach_the_model_as_fractions() -> None:
    model, x = quantize_weights(nn.Linear(8, 4)), torch.zeros(2, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"mean must be at most 1,.* got 123.675; bytes are divided by 255"):
        deploy.lower(model, x, mean=123.675, std=58.4, steps=3)
    with pytest.raises(TypeError, match=r"std must be one number, or one for each channel, got '0.5'"):
        deploy.lower(model, x, std="0.5", steps=3)


def test_a_batch_norm_in_front_of_the_first_layer_is_followed() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1)
    model = prepared(nn.Sequential(Each(norm(nn.BatchNorm2d, 2), conv), MFP(0.5, order=2)))
    check_agreement(model, fractions())


COUNTS = {
    "counts": (0, 9, None),
    "counts up to a stated top": (0, 9, 200),
    "both signs": (-1, 1, None),
    "both signs and more": (-3, 2, 5),
}


@pytest.mark.parametrize(("low", "high", "levels"), COUNTS.values(), ids=COUNTS.keys())
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float32])
@pytest.mark.parametrize("padding", [0, 1])
def test_whole_numbers_reach_the_model_as_they_are(low, high, levels, dtype, padding) -> None:
    """Frames of event counts, of two polarities or signed; a factor of the model itself is followed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(low, high + 1, (3, 2, 2, 5, 5), generator=generator).to(dtype)
    for factor in (1.0, 0.25):
        model = normalizing(lambda x, f=factor: f * x, {"padding": padding}, 3)
        lowered = deploy.lower(model, x, levels=levels)
        expected = exact(model)(x.double()).detach().numpy()
        assert expected.any()
        np.testing.assert_allclose(lowered.run(x, backend="numpy"), expected, rtol=1e-9, atol=1e-9)
        stream = lowered.stream(backend="numpy")
        scores = [stream.step(step) for step in x]
        np.testing.assert_allclose(np.mean(scores, axis=0), expected, rtol=1e-9, atol=1e-9)
    top = levels or {9: 15, 1: 1}[high]
    with pytest.raises(ValueError, match=f"whole numbers from {-top if low < 0 else 0} to {top}"):
        lowered.run(torch.full_like(x, min(top + 1, 120)) if top < 120 else -x, backend="numpy")


@pytest.mark.parametrize("largest", [255, 256, 1000, 2**15])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("pool", [nn.Identity, nn.MaxPool2d, nn.AvgPool2d])
def test_counts_up_to_32768_agree_in_every_execution(largest, signed, pool, tmp_path) -> None:
    """The largest of them, where sums and potentials are largest, is among them."""
    largest //= 1 + signed
    generator = torch.Generator().manual_seed(largest)
    x = torch.randint(-largest if signed else 0, largest + 1, (3, 2, 2, 6, 6), generator=generator)
    x[0, 0], x[1, 0, :, :2] = largest, -largest if signed else 0

    def forward(x, pool, conv, fire, out):
        return out(fire(conv(pool(x / largest))).flatten(2)).mean(0)

    pooling = pool() if pool is nn.Identity else pool(2)
    places = 36 if pool is nn.Identity else 9
    conv = nn.Conv2d(2, 3, 3, padding=1)
    model = prepared(Do(forward, Each(pooling), Each(conv), MFP(0.5, order=3), nn.Linear(3 * places, 4)), 8)
    lowered = deploy.lower(model, x)
    expected = exact(model)(x.double()).detach().numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(lowered.run(x, backend="numpy"), expected, rtol=1e-9, atol=1e-9)
    scores = lowered.run(x)
    np.testing.assert_array_equal(scores, lowered.run(x, backend="numpy"))
    for backend in ("numpy", "auto"):
        stream = lowered.stream(backend=backend)
        steps = [stream.step(step) for step in x]
        np.testing.assert_allclose(np.mean(steps, axis=0), scores, rtol=1e-12)
    np.testing.assert_array_equal(lowered.run_events(x).scores, scores)
    lowered.save(tmp_path / "counts")
    np.testing.assert_array_equal(deploy.IntegerNetwork.load(tmp_path / "counts").run(x), scores)


def test_counts_whose_sums_would_leave_32_bits_are_rounded_within_the_stated_error() -> None:
    model = quantize_weights(nn.Linear(20000, 3), 8)
    network = deploy.lower(model, torch.full((2, 1, 20000), 2**15))
    x = torch.randint(0, 2**15 + 1, (2, 3, 20000), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        off = np.abs(network.run(x) - unrounded(model)(x.double()).numpy())
    assert 0 < off.max() <= network.graph.scores.error.max()


def test_a_file_says_what_its_levels_stand_for(tmp_path) -> None:
    x = torch.randint(-1, 2, (3, 2, 2, 5, 5), generator=torch.Generator().manual_seed(0))
    lowered = deploy.lower(normalizing(lambda x: x, {"padding": 1}, 3), x)
    lowered.save(tmp_path / "signed")
    loaded = deploy.IntegerNetwork.load(tmp_path / "signed")
    assert (loaded.graph.input.low, loaded.graph.input.high, loaded.graph.input.top) == (-1.0, 1.0, 2)
    assert "levels 0..2, which stand for -1 to 1, T = 3" in str(loaded)
    header, *_ = loaded.to_c(tmp_path)
    assert "3 steps, each levels 0..2, which stand for -1 to 1, row-major" in header.read_text()
    np.testing.assert_array_equal(loaded.run(x, backend="numpy"), lowered.run(x, backend="numpy"))


def test_images_from_minus_1_to_1_are_levels_of_bytes() -> None:
    x = fractions() * 2 - 1
    for padding in (0, 1):
        check_agreement(normalizing(lambda x: x, {"padding": padding}, 4), x)


def test_numbers_that_are_neither_whole_nor_in_a_known_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"or hold whole numbers, got numbers from .*mean= and std="):
        deploy.lower(network(lambda x: x), fractions() * 3)
    for signs in ([1], [-1, 1]):
        x = torch.full((1, 1, 2, 5, 5), 2**15 // len(signs)) * torch.tensor(signs).reshape(-1, *[1] * 4)
        deploy.lower(network(lambda x: x), x)
        with pytest.raises(ValueError, match="up to 32768, of both signs up to 16384, got"):
            deploy.lower(network(lambda x: x), x + x.sign())
    for levels in (0, 2**15 + 1, True, 3.0):
        with pytest.raises(ValueError, match="levels must be an integer from 1 to 32768, got"):
            deploy.lower(network(lambda x: x), whole(), levels=levels)


@pytest.mark.parametrize("kernel_bits", ["pow2", 4])
def test_what_rounding_changes_is_counted_on_the_input_that_the_model_gets(kernel_bits) -> None:
    fire = MFP(0.9, order=3, v_threshold=0.3)
    model = prepared(nn.Sequential(Each(nn.Conv2d(2, 3, 3)), fire))
    taps = deploy.lower(model, whole(), mean=[0.2, 0.4], std=0.25, kernel_bits=kernel_bits)
    assert "rounded the taps of '1' (MFP): on 2 samples" in taps.notes[0]


def test_neurons_in_front_of_the_first_layer_may_read_a_normalized_input() -> None:
    def forward(x, fire, out):
        return out(fire((x - 0.3) / 0.4).flatten(2)).mean(0)

    check_agreement(prepared(Do(forward, MFP(0.5, order=2), nn.Linear(50, 4))), fractions())


def test_one_mean_and_std_fold_into_the_batch_norm_behind_a_layer_without_padding_as_the_page_says() -> None:
    mean, std = 0.1307, 0.3081
    conv, bn = nn.Conv2d(2, 3, 3, bias=False), norm(nn.BatchNorm2d, 3)

    def forward(x, first, fire, out):
        return out(fire(first(x)).flatten(2)).mean(0)

    fire = MFP(0.5, order=3, kernel_bits="pow2", v_threshold=0.5)
    model = prepared(Do(forward, Each(conv, bn), fire, nn.Linear(27, 4)))
    expected = exact(model)((fractions() - mean) / std).detach()
    with torch.no_grad():
        weight = exact(model).model.layers[0][0].weight
        bn.double()
        bn.running_mean.mul_(std).add_(mean * weight.sum((1, 2, 3)))
        bn.running_var.add_(bn.eps).mul_(std**2).sub_(bn.eps)
    assert expected.any()
    np.testing.assert_allclose(deploy.lower(model, fractions()).run(fractions()), expected, rtol=1e-9)


def test_true_is_the_largest_level_where_rounding_is_counted() -> None:
    model = prepared(nn.Sequential(Each(nn.Conv2d(2, 3, 3)), MFP(0.9, order=3, v_threshold=0.3)))
    x = fractions(1)
    notes = [deploy.lower(model, one, levels=16, kernel_bits=4).notes for one in (x.bool(), x)]
    assert notes[0] == notes[1]
