"""Orders: the penalty on late taps, the choice under a budget, and the cut."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, QuantizedMembraneLIF, report
from mfp_neurons.orders import cheapest, fit_orders, late_taps, truncate
from mfp_neurons.pooling import TimePool
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

OF_SEQUENCES = {
    "MFP fir": lambda **o: MFP(0.7, kernel="fir", **o),
    "MFP fir per channel pow2": lambda **o: MFP(0.7, kernel="fir", num_channels=6, kernel_bits="pow2", **o),
    "MFP learned exp": lambda **o: MFP(0.7, learnable=True, **o),
    "MFP banded matrix": lambda **o: MFP(0.7, kernel="matrix", time_steps=7, **o),
    "MFPNode fir": lambda **o: MFPNode(kernel="fir", step_mode="m", **o, reset=None),
    "MFPNode exp": lambda **o: MFPNode(step_mode="m", **o, reset=None),
    "MFPLeakyParallel exp": lambda **o: MFPLeakyParallel(0.7, init_hidden=True, **o, reset_mechanism="none"),
    "MFPLeakyParallel fir": lambda **o: MFPLeakyParallel(
        0.7, kernel="fir", init_hidden=True, **o, reset_mechanism="none"
    ),
}
each_neuron = pytest.mark.parametrize("make", OF_SEQUENCES.values(), ids=OF_SEQUENCES)


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with taps and matrices of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith(("taps", "matrix")):
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def network(*neurons: nn.Module, width: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(*(layer for one in neurons for layer in (nn.Linear(width, width), one)))


def firs(*orders: int, **options: Any) -> nn.Sequential:
    return network(*(MFP(0.7, kernel="fir", order=k, **options) for k in orders))


# --- the choice -------------------------------------------------------------------------------------------

tables = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.floats(-5, 5)), max_size=4).map(lambda rest: [(0, 1.0), *rest]),
    min_size=1,
    max_size=4,
)


@given(tables, st.integers(0, 25))
def test_the_choice_is_the_best_of_all(layers, budget):
    chosen = cheapest(layers, budget)

    def totals(picked: tuple[int, ...]) -> tuple[float, float]:
        pairs = [options[index] for options, index in zip(layers, picked, strict=True)]
        return sum(cost for cost, _ in pairs), math.fsum(lost for _, lost in pairs)

    every = itertools.product(*(range(len(options)) for options in layers))
    best = min(totals(p)[1] for p in every if totals(p)[0] <= budget)
    cost, lost = totals(tuple(chosen))
    assert cost <= budget
    assert lost == pytest.approx(best, abs=1e-9)


def share_lost(taps: Tensor, order: int) -> float:
    """Of the power of taps [K, C], what lies behind the order; mean over channels, one at a time."""
    shares = [float(c[order:].square().sum() / c.square().sum()) for c in taps.detach().double().T]
    return sum(shares) / len(shares)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.floats(0, 5), st.integers(0, 99))
def test_orders_lose_the_least_power_of_all_that_the_report_says_fit(orders, state_bits, seed):
    model = stirred(firs(*orders, num_channels=6), seed)
    example = torch.rand(5, 1, 6)
    taps = {name: module.kernel.taps for name, module in model.named_modules() if isinstance(module, MFP)}
    best = math.inf
    for picked in itertools.product(*(range(1, k + 1) for k in orders)):
        candidate = copy.deepcopy(model)
        truncate(candidate, dict(zip(taps, picked, strict=True)))
        if report(candidate, example).state_bits_per_neuron <= state_bits:
            best = min(best, sum(share_lost(t, k) for t, k in zip(taps.values(), picked, strict=True)))
    whole = copy.deepcopy(taps)
    found = fit_orders(model, example, state_bits=state_bits)
    assert sum(share_lost(whole[path], k) for path, k in found.items()) == pytest.approx(best, abs=1e-9)
    assert report(model, example).state_bits_per_neuron <= state_bits


def test_with_a_loss_it_finds_the_orders_of_least_loss_each_layer_by_itself():
    model = stirred(firs(3, 3))
    x, target = torch.rand(6, 4, 6), torch.rand(6, 4, 6)

    def loss(module: nn.Module) -> Tensor:
        assert not module.training and not torch.is_grad_enabled()
        return (module(x) - target).square().mean()

    losses = {}
    for path in ("1", "3"):
        for k in (1, 2, 3):
            candidate = copy.deepcopy(model)
            truncate(candidate, {path: k})
            with torch.no_grad():
                losses[path, k] = float(loss(candidate.eval()))
    fitting = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a - 1 + b - 1 <= 2]
    best = min(losses["1", a] + losses["3", b] for a, b in fitting)
    found = fit_orders(model.train(), x, state_bits=1.0, loss=loss)
    assert losses["1", found["1"]] + losses["3", found["3"]] == pytest.approx(best)
    assert model.training


@each_neuron
def test_losses_are_measured_on_the_very_network_that_a_cut_leaves(make):
    model = stirred(network(make(order=3), make(order=3)))
    x = torch.randn(7, 2, 6)
    measured: list[Tensor] = []

    def loss(module: nn.Module) -> float:
        measured.append(module(x))
        return 0.0

    whole = copy.deepcopy(model)
    fit_orders(model, x, state_bits=9, loss=loss)
    for (path, order), output in zip(itertools.product(("1", "3"), (1, 2, 3)), measured, strict=True):
        cut = copy.deepcopy(whole).eval()
        truncate(cut, {path: order})
        assert torch.equal(output, cut(x))


def test_measuring_a_loss_leaves_taps_gradients_and_states_alone():
    model = stirred(network(MFPNode(kernel="fir", order=3, step_mode="m", reset=None)))
    x = torch.rand(5, 2, 6)
    model(x).sum().backward()
    seen = []
    before = {name: (p.clone(), p.grad.clone()) for name, p in model.named_parameters()}
    history = model[1].history.clone()

    def loss(module: nn.Module) -> float:
        seen.append(module(x))
        return -float(len(seen))  # the last order asked for, the whole kernel, is best

    assert fit_orders(model, x, state_bits=9, loss=loss) == {"1": 3}
    assert len(seen) == 3
    assert all(torch.equal(p, before[name][0]) for name, p in model.named_parameters())
    assert history.shape == (2, 2, 6)


def test_small_layers_get_long_histories_where_bits_are_scarce():
    model = nn.Sequential(
        nn.Linear(4, 30), MFP(0.8, kernel="fir", order=5), nn.Linear(30, 2), MFP(0.8, kernel="fir", order=5)
    )
    assert fit_orders(model, torch.rand(5, 1, 4), state_bits=8 / 32) == {"1": 1, "3": 5}


def test_a_strided_kernel_pays_for_its_reach():
    model = firs(4, stride=3)
    assert fit_orders(model, torch.rand(12, 1, 6), state_bits=8) == {"1": 3}  # 3 taps reach 6 steps back
    assert report(model, torch.rand(12, 1, 6)).state_bits_per_neuron == 6


def test_no_order_reaches_further_than_the_example():
    model = stirred(firs(8))
    assert fit_orders(model, torch.rand(3, 1, 6), state_bits=100) == {"1": 3}


def test_taps_that_are_zero_are_not_kept():
    model = firs(4, kernel_bits="pow2")
    model[1].kernel.taps.data = torch.tensor([1.0, 0.5, 0.001, 0.001])
    assert fit_orders(model, torch.rand(9, 1, 6), state_bits=9) == {"1": 2}


@pytest.mark.parametrize(
    ("make", "least", "orders"),
    [
        (lambda: network(QuantizedMembraneLIF(0.5, bits=2), MFP(0.9, kernel="fir", order=4)), 1, {"3": 3}),
        # the window: a bit a neuron of the second layer
        (lambda: nn.Sequential(*firs(4), TimePool(2), *firs(4)), 0.5, {"1": 2, "4": 3}),
    ],
    ids=["potential", "window"],
)
def test_potentials_and_poolings_over_time_count_against_the_budget(make, least, orders):
    model, example = make(), (torch.rand(8, 1, 6) < 0.5).float()
    assert fit_orders(model, example, state_bits=2) == orders
    assert report(model, example).state_bits_per_neuron == 2
    with pytest.raises(ValueError, match=f"state_bits must be at least {least}, .* got {least - 0.1}"):
        fit_orders(model, example, state_bits=least - 0.1)


@given(st.integers(1, 6), st.floats(1.5, 6))
def test_own_spikes_that_a_shorter_order_leaves_alone_stay_within_the_budget(feedback, state_bits):
    model = firs(4, 4)
    model[1] = MFP(0.5, kernel="fir", order=1, reset="feedback", reset_order=feedback)
    example = (torch.rand(8, 1, 6) < 0.5).float()
    if feedback / 2 > state_bits:
        with pytest.raises(ValueError, match="state_bits must be at least"):
            fit_orders(model, example, state_bits=state_bits)
    else:
        fit_orders(model, example, state_bits=state_bits)
        assert report(model, example).state_bits_per_neuron <= state_bits


# --- the cut ----------------------------------------------------------------------------------------------


@each_neuron
@pytest.mark.parametrize("order", [1, 2, 4])
def test_a_cut_kernel_is_the_old_one_with_zeros_behind(make, order):
    whole, cut = (stirred(network(make(order=4))) for _ in range(2))
    truncate(cut, {"1": order})
    if hasattr(whole[1].kernel, "taps"):
        whole[1].kernel.taps.data[order:] = 0
    elif whole[1].kernel.kind == "matrix":
        whole[1].kernel.matrix.data.copy_(whole[1].kernel.matrix.triu(1 - order))
    else:
        whole = stirred(network(make(order=order)))
    x = torch.randn(7, 2, 6)
    assert torch.equal(cut(x), whole(x))
    assert cut[1].kernel.state_steps == order - 1
    assert report(cut, x).state_bits_per_neuron == order - 1


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("kernel", ["fir", "exp"])
def test_neurons_that_step_are_cut_too_and_forget_what_they_held(order, kernel):
    x = torch.randn(7, 2, 6)
    node = MFPNode(kernel=kernel, order=4, decay_input=False, reset=None)
    leaky = MFPLeaky(0.5, kernel=kernel, order=4, init_hidden=True, reset_mechanism="none")
    for neuron, strict in ((node, False), (leaky, True)):
        neuron(x[0])
        truncate(neuron, {type(neuron).__name__: order})
        expected = MFP(0.5, kernel=kernel, order=order, strict=strict)(x)
        assert torch.equal(torch.stack([neuron(one) for one in x]), expected)


@each_neuron
def test_every_neuron_can_be_fitted_and_trained_on(make):
    model = stirred(network(make(order=4), make(order=4)))
    x = torch.rand(7, 2, 6)
    orders = fit_orders(model, x, state_bits=2)
    assert sum(orders.values()) <= 6
    assert report(model, x).state_bits_per_neuron <= 2
    (model(x).sum() + late_taps(model)).backward()


def test_an_optimizer_goes_on_with_averages_cut_as_the_taps_are():
    cut, zeroed = (stirred(firs(4, num_channels=6)) for _ in range(2))
    x = torch.randn(6, 3, 6)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        (model(x) * torch.linspace(0, 1, 6)).sum().backward()
        optimizer.step()

    optimizers = {model: torch.optim.Adam(model.parameters(), 0.01) for model in (cut, zeroed)}
    for model, optimizer in optimizers.items():
        step(model, optimizer)
    taps = cut[1].kernel.taps
    truncate(cut, {"1": 2}, optimizers[cut])
    assert cut[1].kernel.taps is taps and taps.shape == (2, 6)
    for _ in range(2):
        zeroed[1].kernel.taps.data[2:] = 0
        for model, optimizer in optimizers.items():
            step(model, optimizer)
    torch.testing.assert_close(taps, zeroed[1].kernel.taps[:2])


# --- the penalty ------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 4), st.floats(0.1, 50), st.integers(0, 99))
def test_the_penalty_is_the_mean_lag_and_blind_to_the_size_of_all_taps(order, stride, size, seed):
    model = stirred(firs(order, stride=stride, num_channels=6), seed)
    taps = model[1].kernel.taps
    lags = [
        sum(k * stride * abs(m) for k, m in enumerate(channel)) / sum(abs(m) for m in channel)
        for channel in taps.T.tolist()
    ]
    assert late_taps(model).item() == pytest.approx(sum(lags) / 6, rel=1e-5)
    taps.data.mul_(size)
    assert late_taps(model).item() == pytest.approx(sum(lags) / 6, rel=1e-5)


def test_descending_the_penalty_moves_weight_to_the_present():
    model = firs(6)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    first = late_taps(model).item()
    for _ in range(60):
        optimizer.zero_grad()
        late_taps(model).backward()
        optimizer.step()
    assert late_taps(model).item() < 0.2 * first
    assert model[1].kernel.taps[0] > 0.5


def test_the_penalty_of_a_matrix_is_the_mean_distance_to_its_diagonal():
    model = stirred(network(MFP(0.5, kernel="matrix", time_steps=4)))
    m = model[1].kernel.matrix.detach().tril().abs()
    lag = torch.arange(4)[:, None] - torch.arange(4)
    assert late_taps(model).item() == pytest.approx(float((lag * m).sum() / m.sum()), rel=1e-5)


def test_kernels_of_zeros_have_no_penalty_and_finite_gradients():
    model = firs(3)
    model[1].kernel.taps.data.zero_()
    penalty = late_taps(model)
    penalty.backward()
    assert penalty.item() == 0 and bool(model[1].kernel.taps.grad.isfinite().all())


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda m, x: fit_orders(m, x, state_bits=-1),
            ValueError,
            "state_bits must be a number >= 0, got -1",
        ),
        (lambda m, x: fit_orders(m, x, state_bits=math.nan), ValueError, "state_bits must be a number >= 0"),
        (
            lambda m, x: fit_orders(m, x, state_bits="2"),
            TypeError,
            "state_bits must be a number >= 0, got '2'",
        ),
        (lambda m, x: fit_orders(m, x, state_bits=1, loss=lambda _: math.nan), ValueError, "loss must give"),
        (lambda m, x: fit_orders(nn.Linear(6, 6), x, state_bits=1), ValueError, "no memory-free neuron"),
        (lambda m, x: fit_orders(MFP(0.5), x, state_bits=1), ValueError, "'MFP' .* infinite order"),
        (lambda m, x: fit_orders(3, x, state_bits=1), TypeError, "model must be a torch.nn.Module"),
        (lambda m, x: truncate(m, {"1": 2, "0": 1}), ValueError, "'0' is no memory-free neuron .* there are"),
        (
            lambda m, x: truncate(m, {"1": 2, "3": 5}),
            ValueError,
            r"orders\['3'\] must be an integer from 1 to 4",
        ),
        (lambda m, x: truncate(m, {"1": 2, "3": 1.5}), TypeError, r"orders\['3'\] must be an integer"),
        (lambda m, x: late_taps(MFP(0.5)), ValueError, "infinite order"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(call, error, words):
    model = stirred(firs(4, 4))
    model(torch.rand(5, 1, 6)).sum().backward()
    before = [(p.clone(), p.grad.clone()) for p in model.parameters()]
    with pytest.raises(error, match=words):
        call(model, torch.rand(5, 1, 6))
    torch.testing.assert_close([(p.data, p.grad) for p in model.parameters()], before, rtol=0, atol=0)
    assert [model[i].kernel.order for i in (1, 3)] == [4, 4]


WITH_RESET = {
    "zero": lambda: MFP(0.8, order=9, reset="zero"),
    "subtract": lambda: MFP(0.8, order=9, reset="subtract"),
    "subtract, 3 own spikes": lambda: MFP(0.8, order=9, reset="subtract", reset_order=3),
    "feedback": lambda: MFP(0.8, order=9, reset="feedback", reset_order=4),
    "MFPNode": lambda: MFPNode(order=9, reset="subtract", step_mode="m"),
    "MFPLeakyParallel": lambda: MFPLeakyParallel(0.8, order=9, reset_mechanism="zero", init_hidden=True),
}


@pytest.mark.parametrize("state_bits", [4.5, 7.0, 12.0])
@pytest.mark.parametrize("name", WITH_RESET)
def test_own_spikes_count_against_the_budget(name, state_bits):
    make = WITH_RESET[name]
    model, x = network(make(), make(), make()), torch.rand(12, 2, 6)
    orders = fit_orders(model, x, state_bits=state_bits)
    costs = report(model, x)
    assert costs.state_bits_per_neuron <= state_bits
    assert max(orders.values()) > 1 or state_bits < 5
    assert model(x).shape == (12, 2, 6)


def test_a_reset_that_keeps_a_potential_counts_as_one():
    model, x = network(MFP(0.8, reset="subtract"), MFP(0.8, order=9)), torch.rand(12, 2, 6)
    assert fit_orders(model, x, state_bits=17.0) == {"3": 3}  # 32 bits of the one, 2 of the other
    with pytest.raises(ValueError, match="state_bits must be at least 16, what potentials"):
        fit_orders(model, x, state_bits=15)
