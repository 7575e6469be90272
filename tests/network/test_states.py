"""What neurons keep between calls: read rightly, or refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.network import NetworkError, describe
from mfp_neurons.nir import NIRError, from_nir, to_nir

pytest.importorskip("spikingjelly.activation_based")
pytest.importorskip("snntorch")

import snntorch as snn
from spikingjelly.activation_based import neuron

from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
from mfp_neurons.spikingjelly import MFPNode

X = torch.ones(3, 1, 1)
Fire = Callable[[], nn.Module]
Forward = Callable[[Tensor, nn.Module, Any], Any]


class Model(nn.Module):
    """A layer of weight 1, neurons, and a forward over both."""

    def __init__(self, fire: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.layer, self.fire, self.does = nn.Linear(1, 1, bias=False), fire, forward
        self.layer.weight.data.fill_(1.0)
        quantize_weights(self, bits=1, first=1, last=1).eval()

    def forward(self, x: Tensor) -> Any:
        return self.does(x, self.layer, self.fire)


def node(mode: str = "m", **options: Any) -> nn.Module:
    return MFPNode(
        **{"tau": 2.0, "decay_input": False, "v_threshold": 1.2, "step_mode": mode} | options, reset=None
    )


def parallel() -> nn.Module:
    return MFPLeakyParallel(beta=0.5, threshold=1.2, init_hidden=True, reset_mechanism="none")


def leaky(**options: Any) -> nn.Module:
    return MFPLeaky(**{"beta": 0.5, "threshold": 1.2, "init_hidden": True} | options, reset_mechanism="none")


def each(forward: Forward) -> Forward:
    """The same for every step, in a loop."""
    return lambda x, f, n: torch.stack([forward(step, f, n) for step in x])


def twice(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    return f(n(f(n(f(x)))))


def check_graph(model: nn.Module) -> None:
    x = torch.rand(9, 2, 1, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(from_nir(to_nir(model, x))(x), expected)
    assert expected.any()


# --- calls one after the other ------------------------------------------------------------------------------


STATELESS: dict[str, tuple[Fire, Forward]] = {
    "a node of order 1": (lambda: node(order=1, v_threshold=1.0), twice),
    "MFP": (lambda: MFP(0.5, v_threshold=1.2), twice),
    "MFPLeakyParallel": (parallel, twice),
    "steps of a node of order 1": (lambda: node("s", order=1, v_threshold=1.0), each(twice)),
    "steps of MFPLeaky of order 1": (lambda: leaky(order=1, threshold=0.9), each(twice)),
}


@pytest.mark.parametrize("name", STATELESS)
def test_neurons_that_carry_nothing_between_their_calls_may_be_called_twice(name: str) -> None:
    fire, forward = STATELESS[name]
    model = Model(fire(), forward)
    check_graph(model)
    if not name.startswith("steps"):
        np.testing.assert_array_equal(deploy.lower(model, X).run(X), model(X).detach().numpy())


def test_a_node_that_is_reset_between_its_calls_starts_from_rest_twice() -> None:
    """By hand: u = 1, 1.5, 1.75 fires 0, 1, 1; from rest again u = 0, 1, 1.5 fires 0, 0, 1."""
    model = Model(node(), lambda x, f, n: (once := n(f(x)), n.reset(), n(f(once)))[2])
    assert deploy.lower(model, X).run(X).ravel().tolist() == [0, 0, 1]


def started(start: Any) -> Forward:
    def forward(x: Tensor, f: nn.Module, n: Any) -> Tensor:
        n.v = start
        return f(n(f(x)))

    return forward


def reset(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    n.reset()
    return n(f(x))


def scaled(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    mem, record = n.reset_mem(), []
    for step in x:
        spk, mem = n(f(step), mem * 0.5)
        record.append(spk)
    return torch.stack(record)


REFUSED: dict[str, tuple[Fire, Forward, str]] = {
    "a second call": (node, twice, r"'fire' \(MFPNode\) is called twice in one forward.*a neuron for each"),
    "of finite order": (lambda: node(order=3), twice, "is called twice"),
    "of a matrix": (
        lambda: node(kernel="matrix", time_steps=3),
        twice,
        "is called twice|a kernel of its own",
    ),
    "a start": (node, started(0.5), r"'fire' \(MFPNode\) starts from a potential"),
    "a start of its own": (node, started(torch.full((2, 1), 0.5)), "starts from a potential"),
    "the past inputs": (
        lambda: node(order=3),
        lambda x, f, n: n(f(x))[-1] + n.history[0],
        "reads a neuron's history.*Use the spikes",
    ),
    "steps: a second call": (lambda: node("s"), each(twice), "every neuron once a step"),
    "steps: a start": (lambda: node("s"), each(started(0.5)), "starts from a potential"),
    "steps: a reset": (lambda: node("s"), each(reset), "is reset between two steps"),
    "mem to start from": (
        lambda: MFPLeaky(beta=0.5, reset_mechanism="none"),
        each(lambda x, f, n: n(f(x), torch.ones(2, 1))[0]),
        "starts from a potential",
    ),
    "mem that another step made": (
        lambda: MFPLeaky(beta=0.5, reset_mechanism="none"),
        scaled,
        "another potential than its last call returned",
    ),
    "two inputs": (
        leaky,
        lambda x, f, n: torch.stack([n(f(step)) if t else n(step) for t, step in enumerate(x)]),
        "is called for two different inputs",
    ),
    "steps in another order": (
        leaky,
        lambda x, f, n: torch.stack([n(f(x[t])) for t in reversed(range(len(x)))]),
        r"'fire' \(MFPLeaky\) is called for step 2 as its call number 1",
    ),
    "from zero": (
        lambda: MFPLeaky(beta=0.5, reset_mechanism="none"),
        each(lambda x, f, n: n(f(x), torch.zeros(2, 1))[0]),
        "is reset between two steps",
    ),
}


@pytest.mark.parametrize(("fire", "forward", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_another_state_than_rest_or_that_of_the_last_step_is_refused(
    fire: Fire, forward: Forward, words: str
) -> None:
    with pytest.raises(NetworkError, match=words):
        describe(Model(fire(), forward), X)


def test_a_model_that_was_not_reset_is_lowered_from_rest_and_that_is_said(
    said: pytest.LogCaptureFixture,
) -> None:
    model = Model(node(), lambda x, f, n: f(n(f(x))))
    expected = model(X).detach().numpy()
    kept = model.fire.v.clone()
    network = deploy.lower(model, X)
    assert "starts every sequence from rest (fire)" in said.text
    np.testing.assert_array_equal(network.run(X), expected)
    assert torch.equal(model.fire.v, kept)


# --- potentials ---------------------------------------------------------------------------------------------


READS: dict[str, tuple[Fire, Forward]] = {
    "v": (node, lambda x, f, n: n(f(x))[-1] + n.v),
    "v of order 1": (lambda: node(order=1), lambda x, f, n: n(f(x))[-1] + n.v),
    "v alone": (lambda: node(order=3), lambda x, f, n: (n(f(x)), n.v)[1]),
    "v_seq": (lambda: node(store_v_seq=True), lambda x, f, n: n(f(x)) + 0.5 * n.v_seq),
    "the mean of v_seq": (lambda: node(store_v_seq=True), lambda x, f, n: (n(f(x)), n.v_seq)[1].mean(0)),
    "the last of v_seq": (lambda: node(store_v_seq=True), lambda x, f, n: n(f(x))[-1] + n.v_seq[-1]),
    "mem": (parallel, lambda x, f, n: n(f(x))[-1] + n.mem),
    "mem, returned": (
        lambda: MFPLeakyParallel(0.5, threshold=1.2, reset_mechanism="none"),
        lambda x, f, n: n(f(x))[1],
    ),
}
MIXED = [name for name in READS if name not in ("v alone", "the mean of v_seq", "mem, returned")]
READS_STEPS: dict[str, tuple[Fire, Forward]] = {
    "v of every step": (lambda: node("s"), each(lambda x, f, n: n(f(x)) + n.v)),
    "mem of every step": (leaky, each(lambda x, f, n: n(f(x)) + n.mem)),
}


@pytest.mark.parametrize("name", [*READS, *READS_STEPS])
def test_a_potential_that_is_read_is_a_node_of_a_graph_that_is_read(name: str) -> None:
    fire, forward = (READS | READS_STEPS)[name]
    check_graph(Model(fire(), forward))


@pytest.mark.parametrize(
    ("fire", "forward"),
    [*(READS[name] for name in MIXED), (node, lambda x, f, n: n(f(x))[-1] * n.v)],
    ids=[*MIXED, "v, multiplied"],
)
def test_integers_refuse_a_potential_with_the_neuron_and_what_to_do(fire: Fire, forward: Forward) -> None:
    with pytest.raises(deploy.LoweringError, match=r"membrane potential of 'fire' \(MFP\w+\).*spikes"):
        deploy.lower(Model(fire(), forward), X)


def test_a_potential_of_which_only_the_shape_is_asked_is_lowered() -> None:
    model = Model(node(), lambda x, f, n: f(n(f(x))) * n.v.dim())
    assert deploy.lower(model, X).run(X).ravel().tolist() == [0, 2, 2]


# --- LIFs of the frameworks ---------------------------------------------------------------------------------


def lif(**options: Any) -> nn.Module:
    return neuron.LIFNode(v_threshold=0.4, v_reset=-0.5, **{"step_mode": "m"} | options)


def test_a_lif_starts_from_the_potential_that_it_resets_to() -> None:
    model = Model(lif(), lambda x, f, n: n(f(x)))
    expected = describe(model, X)
    model(X)  # its state is that of a sequence now
    assert str(describe(model, X)) == str(expected) and model.fire.v.any()
    set_to_rest = Model(lif(), lambda x, f, n: (setattr(n, "v", -0.5), n(f(x)))[1])
    assert str(describe(set_to_rest, X)) == str(expected)
    assert "exponential, u >= 0.4, reset to -0.5" in str(expected)


LIF_REFUSED: dict[str, tuple[Fire, Forward, str]] = {
    "zero is no rest": (lif, started(0.0), r"'fire' \(LIFNode\) starts from a potential"),
    "a second call": (lif, twice, "is called twice in one forward"),
    "steps: a second call": (lambda: lif(step_mode="s"), each(twice), "every neuron once a step"),
    "steps: a reset": (lambda: lif(step_mode="s"), each(reset), "is reset between two steps"),
    "steps: mem from elsewhere": (
        lambda: snn.Leaky(0.5),
        each(lambda x, f, n: n(f(x), torch.ones(2, 1))[0]),
        "starts from a potential",
    ),
}


@pytest.mark.parametrize("name", LIF_REFUSED)
def test_a_lif_that_is_no_plain_sequence_is_refused(name: str) -> None:
    fire, forward, words = LIF_REFUSED[name]
    with pytest.raises(NetworkError, match=words):
        describe(Model(fire(), forward), X)


def test_the_potential_of_a_lif_is_in_no_network() -> None:
    for make, forward in ((lif, READS["v"][1]), (lambda: lif(store_v_seq=True), READS["v_seq"][1])):
        with pytest.raises(deploy.LoweringError, match=r"membrane potential of 'fire' \(LIFNode\)"):
            deploy.lower(Model(make(), forward), X)
        with pytest.raises(NIRError, match=r"reads the potential of 'fire' \(LIFNode\), which resets"):
            to_nir(Model(make(), forward), X)
