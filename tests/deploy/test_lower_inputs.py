"""A model that scales, shifts or normalizes its own input is followed exactly, or told what to do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfp_neurons import MFP, deploy
from mfp_neurons.deploy import LoweringError

from .lowering import Do, Each, check_agreement, images, norm, prepared
from .oracle import exact

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
    "the other way round": lambda x: 1 - x,
    "a negative factor": lambda x: -x,
}


@pytest.mark.parametrize("before", NORMALIZED.values(), ids=NORMALIZED.keys())
@pytest.mark.parametrize("example", [fractions, lambda: fractions().float()], ids=["float64", "float32"])
def test_a_normalized_input_is_refused_with_the_cure(before: Before, example: Callable[[], Tensor]) -> None:
    with pytest.raises(LoweringError, match=r"normalizes its input.*batch norm behind the first layer"):
        deploy.lower(network(before), example())


@pytest.mark.parametrize("before", [NORMALIZED["a mean"], NORMALIZED["one mean and one std"]])
def test_a_shift_of_levels_in_integers_is_refused_with_the_cure(before: Before) -> None:
    with pytest.raises(LoweringError, match=r"normalizes its input.*batch norm behind the first layer"):
        deploy.lower(network(lambda x: before(x.float())), whole())


def test_a_batch_norm_in_front_of_the_first_layer_is_refused_with_the_cure() -> None:
    model = prepared(nn.Sequential(Each(norm(nn.BatchNorm2d, 2), nn.Conv2d(2, 3, 3)), MFP(0.5, order=2)))
    with pytest.raises(LoweringError, match=r"'0.1' .*'0.0' \(BatchNorm2d\), which shifts or normalizes"):
        deploy.lower(model, fractions())


def test_the_cure_is_named_for_a_still_image_that_the_model_repeats() -> None:
    def forward(x, first, fire, out):
        y = first((x - 0.1307) / 0.3081)
        return out(fire(y.unsqueeze(0).repeat(4, 1, 1, 1, 1)).flatten(2)).mean(0)

    model = prepared(Do(forward, nn.Conv2d(1, 3, 3), MFP(0.5, order=2), nn.Linear(27, 2)))
    with pytest.raises(LoweringError, match="normalizes its input"):
        deploy.lower(model, images(1, 5, 5)[:1])


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
