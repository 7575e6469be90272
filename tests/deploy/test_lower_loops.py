"""Loops over time, the networks of snnTorch's tutorials among them, and what they return."""

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import surrogate, utils
from spikingjelly.activation_based import functional
from spikingjelly.activation_based import layer as sj_layer
from spikingjelly.activation_based import neuron as sj_neuron
from torch import Tensor, nn

from mfp_neurons import MFP, MFPNode, deploy, quantize_weights
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import Graph
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

from .loops import heads, in_float64, reduced

T, N = 6, 3
BETA = 0.5
GRAD = surrogate.fast_sigmoid(slope=25)


class Tutorial5(nn.Module):
    """Of tutorial 5, and of the population coding tutorial with more outputs."""

    def __init__(self, inputs: int = 49, hidden: int = 20, outputs: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.lif1 = snn.Leaky(beta=BETA)
        self.fc2 = nn.Linear(hidden, outputs)
        self.lif2 = snn.Leaky(beta=BETA)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        spk2_rec = []
        mem2_rec = []
        for _ in range(T):
            cur1 = self.fc1(x)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


class Tutorial6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 5)
        self.lif1 = snn.Leaky(beta=BETA, spike_grad=GRAD)
        self.conv2 = nn.Conv2d(4, 6, 5)
        self.lif2 = snn.Leaky(beta=BETA, spike_grad=GRAD)
        self.fc1 = nn.Linear(6 * 4 * 4, 10)
        self.lif3 = snn.Leaky(beta=BETA, spike_grad=GRAD)

    def forward(self, x):
        mem1 = self.lif1.init_leaky()
        mem2 = self.lif2.init_leaky()
        mem3 = self.lif3.init_leaky()
        spk3_rec = []
        mem3_rec = []
        for _ in range(T):
            cur1 = F.max_pool2d(self.conv1(x), 2)
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = F.max_pool2d(self.conv2(spk1), 2)
            spk2, mem2 = self.lif2(cur2, mem2)
            cur3 = self.fc1(spk2.view(x.size(0), -1))
            spk3, mem3 = self.lif3(cur3, mem3)
            spk3_rec.append(spk3)
            mem3_rec.append(mem3)
        return torch.stack(spk3_rec, dim=0), torch.stack(mem3_rec, dim=0)


def hidden_states(channels: int = 1, width: int = 4) -> nn.Sequential:
    """Of tutorials 6 and 7: the neurons carry their states, and the loop stands outside."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 5),
        nn.MaxPool2d(2),
        snn.Leaky(beta=BETA, spike_grad=GRAD, init_hidden=True),
        nn.Conv2d(4, 6, 5),
        nn.MaxPool2d(2),
        snn.Leaky(beta=BETA, spike_grad=GRAD, init_hidden=True),
        nn.Flatten(),
        nn.Linear(6 * width * width, 10),
        snn.Leaky(beta=BETA, spike_grad=GRAD, init_hidden=True, output=True),
    )


class ForwardPass(nn.Module):
    """The loop of tutorial 6 (one image at every step), and of tutorial 7 (a sequence of frames)."""

    def __init__(self, net: nn.Module, frames: bool = False) -> None:
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, data):
        mem_rec = []
        spk_rec = []
        utils.reset(self.net)
        for step in range(data.size(0) if self.frames else T):
            spk_out, mem_out = self.net(data[step] if self.frames else data)
            spk_rec.append(spk_out)
            mem_rec.append(mem_out)
        return torch.stack(spk_rec), torch.stack(mem_rec)


class Regression(nn.Module):
    """Of the first regression tutorial: the potential of the last layer, which has no reset, is returned."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"learn_beta": True, "spike_grad": GRAD}
        self.fc1 = nn.Linear(1, hidden)
        self.lif1 = snn.Leaky(beta=torch.rand(hidden), threshold=torch.rand(hidden), **options)
        self.fc2 = nn.Linear(hidden, hidden)
        self.lif2 = snn.Leaky(beta=torch.rand(hidden), threshold=torch.rand(hidden), **options)
        self.fc_out = nn.Linear(hidden, 1)
        self.li_out = snn.Leaky(beta=torch.rand(1), threshold=1.0, reset_mechanism="none", **options)

    def forward(self, x):
        mem_1 = self.lif1.init_leaky()
        mem_2 = self.lif2.init_leaky()
        mem_3 = self.li_out.init_leaky()
        mem_3_rec = []
        for step in range(x.size(0)):
            x_timestep = x[step, :, :]
            cur1 = self.fc1(x_timestep)
            spk1, mem_1 = self.lif1(cur1, mem_1)
            cur2 = self.fc2(spk1)
            spk2, mem_2 = self.lif2(cur2, mem_2)
            cur3 = self.fc_out(spk2)
            _, mem_3 = self.li_out(cur3, mem_3)
            mem_3_rec.append(mem_3)
        return torch.stack(mem_3_rec)


def excited(model: nn.Module) -> nn.Module:
    """Quantized, with weights so large that every layer fires."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.mul_(4)
    return quantize_weights(model, bits=4)


def outputs(returned: Any) -> list[Tensor]:
    several = returned.values() if isinstance(returned, dict) else returned
    return list(several) if isinstance(several, tuple | list) or isinstance(returned, dict) else [returned]


def agrees(model: nn.Module, x: Tensor, only: int | None = None, **options: Any) -> Graph:
    """Lowers, and compares what each head gives with what the model returns in float64."""
    graph = lower_graph(model, x, **options)
    check(graph)
    with torch.no_grad():
        expected = outputs(in_float64(model)(x.double()))
    expected = expected if only is None else expected[only : only + 1]
    observed = heads(graph, x)
    assert len(observed) == len(expected)
    for head, mine, theirs in zip(graph.heads, observed, expected, strict=True):
        assert bool((theirs != theirs.flatten()[0]).any()), "one number everywhere tests nothing"
        steps = head.last or graph.steps
        allowed = head.error.max() * (steps if head.reduce == "sum" else 1) + 1e-9
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-9, atol=allowed)
    return graph


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float() / 255


def frames(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.3).float()


TUTORIALS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "5": lambda: (Tutorial5(), pixels(N, 49)),
    "6": lambda: (Tutorial6(), pixels(N, 1, 28, 28)),
    "6, hidden states": lambda: (ForwardPass(hidden_states()), pixels(N, 1, 28, 28)),
    "7": lambda: (ForwardPass(hidden_states(2, 5), frames=True), frames(T, N, 2, 34, 34)),
    "population coding": lambda: (Tutorial5(outputs=50), pixels(N, 49)),
}


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_network_of_a_tutorial_fires_as_snntorch_does(name: str) -> None:
    torch.manual_seed(0)
    model, x = TUTORIALS[name]()
    agrees(excited(model), x, only=0)


def test_the_network_of_the_regression_tutorial_gives_its_potential_within_its_bound() -> None:
    torch.manual_seed(0)
    model, x = excited(Regression(20)), pixels(T, N, 1)
    for name in ("lif1", "lif2"):
        neuron = model.get_submodule(name)
        neuron.beta.data = 0.5 ** torch.randint(0, 3, neuron.beta.shape)  # exact as integers
    graph = agrees(model, x)
    assert graph.scores.order == T and [op.name for op in graph.body] == ["lif1", "lif2"]


def test_a_loop_that_stands_outside_gives_the_network_of_the_loop_inside() -> None:
    torch.manual_seed(0)
    net, x = excited(hidden_states()), pixels(N, 1, 28, 28)
    sequence = x.expand(T, *x.shape)
    outside = lower_graph(net, x, steps=T)
    inside = agrees(ForwardPass(net, frames=True), sequence, only=0)
    np.testing.assert_array_equal(heads(outside, sequence)[0], heads(inside, sequence)[0])
    assert not outside.fixed and outside.steps == T
    for mine, theirs in zip(outside.ops, inside.ops, strict=True):
        assert f"net.{mine.name}" == theirs.name


def test_a_loop_outside_of_spikingjelly_in_single_steps_gives_the_network_of_whole_sequences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        sj_layer.Conv2d(1, 4, 3, bias=False),
        sj_layer.BatchNorm2d(4),
        sj_neuron.LIFNode(tau=2.0, detach_reset=True),
        sj_layer.Flatten(),
        sj_layer.Linear(4 * 6 * 6, 5),
        sj_neuron.LIFNode(tau=2.0, v_reset=None),
    )
    net, x = excited(net).eval(), pixels(N, 1, 8, 8)
    single = lower_graph(net, x, steps=T)
    functional.set_step_mode(net, "m")
    sequence = x.expand(T, *x.shape)
    np.testing.assert_array_equal(heads(single, sequence)[0], heads(lower_graph(net, sequence), sequence)[0])


def test_a_loop_outside_is_run_step_by_step_to_say_what_rounding_taps_changes() -> None:
    torch.manual_seed(0)
    net = quantize_weights(nn.Sequential(nn.Linear(8, 12), snn.Leaky(0.9, threshold=0.25, init_hidden=True)))
    network = deploy.lower(net, frames(N, 8), steps=T, kernel_bits=8)
    (note,) = network.notes
    assert f"of {T * N * 12} spikes are others" in note
    assert network.run(frames(T, N, 8)).shape == (T, N, 12) == network.run(frames(N, 8)).shape


def test_a_loop_outside_needs_its_number_of_steps() -> None:
    net, x = quantize_weights(hidden_states()), pixels(N, 1, 28, 28)
    with pytest.raises(deploy.LoweringError, match=r"deploy.lower\(model, example, steps=T\)"):
        lower_graph(net, x)
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got 0"):
        deploy.lower(net, x, steps=0)


# --- what is read out ---------------------------------------------------------------------------------------

READ_OUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "every step": lambda x: x,
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(dim=0),
    "last": lambda x: x[-1],
    "window": lambda x: x[-3:].mean(0),
    "without the first": lambda x: x[2:].mean(0),
    "sum without the first": lambda x: x[1:][1:].sum(0),
    "every step but the first": lambda x: x[2:],
    "sum, scaled": lambda x: -0.5 * x.sum(0) / 3,
    "largest": lambda x: x.max(0)[0],
    "largest value": lambda x: torch.max(x, dim=0).values,
    "largest without the first": lambda x: x[2:].amax(0),
}


class Recorded(nn.Module):
    """A loop over the steps of a sequence that reads out spikes or potentials of its last layer."""

    def __init__(
        self,
        last: nn.Module,
        read_out: Callable[[Tensor], Tensor],
        potential: bool,
        hidden: nn.Module | None = None,
        record: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(8, 12), hidden or snn.Leaky(beta=0.5)
        self.fc2, self.lif2 = nn.Linear(12, 4), last
        self.read_out, self.potential, self.record = read_out, potential, record

    def forward(self, x):
        spk_rec, mem_rec = [], []
        written = None if self.record is None else self.record(x, 4)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        for step in x:
            spk, mem1 = self.lif1(self.fc1(step), mem1)
            spk, mem2 = self.lif2(self.fc2(spk), mem2)
            if written is not None:
                written[len(spk_rec)] = mem2 if self.potential else spk
            spk_rec.append(spk)
            mem_rec.append(mem2)
        return self.read_out(
            torch.stack(mem_rec if self.potential else spk_rec) if written is None else written
        )


@pytest.mark.parametrize("name", READ_OUTS)
@pytest.mark.parametrize("potential", [False, True])
@pytest.mark.parametrize("reset", ["subtract", "none"])
def test_what_is_read_out_of_a_loop_is_what_snntorch_gives(name: str, potential: bool, reset: str) -> None:
    torch.manual_seed(3)
    last = snn.Leaky(beta=0.5, threshold=0.25, reset_mechanism=reset)
    model = excited(Recorded(last, READ_OUTS[name], potential))
    assert not agrees(model, frames(T, N, 8)).fixed


@pytest.mark.parametrize("name", ["sum", "window", "every step but the first", "largest without the first"])
@pytest.mark.parametrize("potential", [False, True])
def test_a_read_out_follows_the_steps_of_a_longer_sequence(name: str, potential: bool) -> None:
    torch.manual_seed(1)
    hidden, last = (MFPLeaky(0.5, threshold=0.25, order=3, kernel_bits="pow2") for _ in range(2))
    model = excited(Recorded(last, READ_OUTS[name], potential, hidden))
    graph, longer = lower_graph(model, frames(T, N, 8)), frames(T + 3, N, 8)
    expected = in_float64(model)(longer.double()).detach().numpy()
    np.testing.assert_allclose(heads(graph, longer)[0], expected, rtol=1e-9, atol=1e-9)


@st.composite
def loops(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(draw(st.integers(0, 2**20)))
    potential = draw(st.booleans())
    resets = ["subtract", "none"] if potential else ["subtract", "none", "zero"]

    def neuron(resets: list[str], channels: int) -> nn.Module:
        beta = draw(st.sampled_from([0.5, 0.25, 1.0, 0.5 ** torch.randint(0, 3, (channels,))]))
        threshold = draw(st.sampled_from([0.25, 1.0, torch.randint(1, 9, (channels,)) / 8]))
        return snn.Leaky(beta, threshold, reset_mechanism=draw(st.sampled_from(resets)))

    hidden, last = neuron(["subtract", "none", "zero"], 12), neuron(resets, 4)
    record = draw(st.sampled_from([None, lambda x, classes: x.new_empty(*x.shape[:2], classes)]))
    model = Recorded(last, draw(st.sampled_from(list(READ_OUTS.values()))), potential, hidden, record)
    model = quantize_weights(model, draw(st.sampled_from([1, 3, 8])))
    return model, frames(T, N, 8) if draw(st.booleans()) else pixels(T, N, 8)


@settings(max_examples=25, deadline=None)
@given(loops())
def test_random_loops_give_what_snntorch_gives_in_float64(case: tuple[nn.Module, Tensor]) -> None:
    model, x = case
    graph = lower_graph(model, x)
    check(graph)
    with torch.no_grad():
        expected = in_float64(model)(x.double()).numpy()
    (scores,) = heads(graph, x)
    network, head = deploy.IntegerNetwork(graph), graph.scores
    for backend in ("numpy", "auto"):
        np.testing.assert_allclose(network.run(x, backend=backend), scores, rtol=1e-12)
    stream = network.stream()
    steps = np.stack([stream.step(step) for step in x])
    np.testing.assert_allclose(reduced(head, steps), scores, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(network.run_events(x).scores, network.run(x))
    allowed = head.error.max() * (T if head.reduce == "sum" else 1) + 1e-9
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=allowed)


def test_the_potential_of_parallel_neurons_is_read_out() -> None:
    torch.manual_seed(0)

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(8, 12), MFP(0.5, order=3, kernel_bits="pow2")
            self.fc2 = nn.Linear(12, 4)
            self.out = MFPLeakyParallel(0.9, threshold=float("inf"), output=True)

        def forward(self, x):
            return self.out(self.fc2(self.lif1(self.fc1(x))))[1].mean(0)

    agrees(excited(Parallel()), frames(T, N, 8))


@pytest.mark.parametrize("make", [sj_neuron.LIFNode, MFPNode])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_v_of_spikingjelly_is_read_out_after_its_reset(make: Any, mode: str) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"v_reset": None} if make is sj_neuron.LIFNode else {"reset": "subtract"}

    class ReadsV(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = sj_layer.Linear(8, 12), sj_neuron.LIFNode(tau=2.0)
            self.fc2, self.lif2 = sj_layer.Linear(12, 4), make(tau=2.0, v_threshold=0.5, **options)

        def forward(self, x):
            if mode == "m":
                self.lif2(self.fc2(self.lif1(self.fc1(x))))
                return self.lif2.v
            for step in x:
                self.lif2(self.fc2(self.lif1(self.fc1(step))))
            return self.lif2.v

    model = excited(ReadsV())
    functional.set_step_mode(model, mode)
    agrees(model, frames(T, N, 8))


@pytest.mark.parametrize("v_reset", [None, 0.0])
def test_the_potential_of_neurons_that_never_fire_is_a_read_out(v_reset: float | None) -> None:
    torch.manual_seed(0)

    class ReadsV(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(8, 12), sj_neuron.LIFNode(step_mode="m")
            self.fc2 = nn.Linear(12, 4)
            self.lif2 = sj_neuron.LIFNode(v_threshold=inf, v_reset=v_reset, step_mode="m", store_v_seq=True)

        def forward(self, x):
            self.lif2(self.fc2(self.lif1(self.fc1(x))))
            return self.lif2.v_seq

    model, x = excited(ReadsV()), frames(T, N, 8)
    if v_reset is None:  # there SpikingJelly itself computes 0 * inf
        assert np.isfinite(heads(lower_graph(model, x), x)[0]).all()
    else:
        agrees(model, x)


def test_a_module_with_a_loop_of_its_own_is_named_with_what_is_read() -> None:
    model = nn.Sequential(nn.Linear(8, 4), sj_neuron.NonSpikingLIFNode())
    with pytest.raises(
        deploy.LoweringError, match=r"'1' \(NonSpikingLIFNode\).*loop over time of its own.*inf"
    ):
        lower_graph(quantize_weights(model), frames(T, N, 8))


def test_the_potential_of_a_neuron_that_resets_to_zero_is_refused() -> None:
    model = quantize_weights(Recorded(snn.Leaky(0.5, reset_mechanism="zero"), lambda x: x, True))
    with pytest.raises(deploy.LoweringError, match=r"'lif2' \(Leaky\) resets to a number, and its potential"):
        lower_graph(model, frames(T, N, 8))


def test_steps_that_a_loop_concatenates_are_its_sequence() -> None:
    class Concatenated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(8, 4), snn.Leaky(0.5, threshold=0.25, init_hidden=True)

        def forward(self, x):
            return torch.cat([self.lif(self.fc(step)).unsqueeze(0) for step in x]).sum(0)

    torch.manual_seed(0)
    agrees(excited(Concatenated()), frames(T, N, 8))


class Summed(nn.Module):
    """What SpikingJelly's tutorials do: rates are added up in the loop."""

    def __init__(self, first: int = 0, last: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 12),
            sj_neuron.LIFNode(v_threshold=0.25),
            nn.Linear(12, 4),
            sj_neuron.LIFNode(v_threshold=0.25),
        )
        self.first, self.last = first, last

    def forward(self, x):
        out_fr = 0.0
        for t in range(len(x)):
            fired = self.net(x[t])
            if t >= self.first and (self.last is None or t <= self.last):
                out_fr += fired
        return out_fr / 4


@pytest.mark.parametrize("first", [0, 2])
def test_spikes_that_a_loop_adds_up_are_the_sum_of_its_steps(first: int) -> None:
    torch.manual_seed(0)
    graph = agrees(excited(Summed(first)), frames(T, N, 8))
    assert (graph.scores.reduce, graph.scores.skip, graph.fixed) == ("sum", first, False)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("first", [1, 4])
def test_a_list_without_its_first_steps_leaves_them_out(first: int, repeated: bool) -> None:
    class Warm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(8, 12), snn.Leaky(BETA, init_hidden=True)

        def forward(self, x):
            utils.reset(self)
            record = [self.lif1(self.fc1(step)) for step in ([x] * T if repeated else x)]
            return torch.stack(record[first:]).mean(0)

    torch.manual_seed(0)
    x = frames(T, N, 8)
    graph = agrees(excited(Warm()), x[0] if repeated else x)
    assert (graph.scores.reduce, graph.scores.skip, graph.steps) == ("mean", first, T)
    assert graph.fixed is False


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_the_counts_of_a_population_are_those_of_its_neurons_together(how: str) -> None:
    class Population(Summed):
        def forward(self, x):
            counts = super().forward(x)
            return getattr(counts.view(-1, 2, 2), how)(-1)

    torch.manual_seed(0)
    agrees(excited(Population(0)), frames(T, N, 8))


def test_a_sum_of_some_steps_of_a_loop_is_refused_with_which() -> None:
    with pytest.raises(deploy.LoweringError, match="returns the sum of steps 0 to 3 of 6"):
        lower_graph(quantize_weights(Summed(0, 3)), frames(T, N, 8))


# --- several tensors ----------------------------------------------------------------------------------------


class Heads(nn.Module):
    """Two heads behind one layer of neurons; ``give`` returns what it makes of them."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 12), MFP(0.5, order=3, kernel_bits="pow2"))
        self.a, self.b = nn.Linear(12, 4), nn.Linear(12, 2)
        self.give = give

    def forward(self, x):
        x = self.body(x)
        return self.give(self.a(x), self.b(x))


@pytest.mark.parametrize(
    ("give", "keys"),
    [
        (lambda a, b: (a.mean(0), b), ()),
        (lambda a, b: [a[-1], b.sum(0), a.amax(0)], ()),
        (lambda a, b: {"shape": a.mean(0), "color": b[2:].mean(0)}, ("shape", "color")),
    ],
)
def test_a_model_returns_several_tensors(give: Callable[..., Any], keys: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    graph = agrees(excited(Heads(give)), frames(T, N, 8))
    assert graph.keys == keys


def test_none_among_the_tensors_that_a_model_returns_is_left_out() -> None:
    torch.manual_seed(0)
    model, x = excited(Heads(lambda a, b: (None, a.mean(0)))), frames(T, N, 8)
    expected = in_float64(model)(x.double())[1].detach().numpy()
    (scores,) = heads(lower_graph(model, x), x)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", [1, 2])
def test_a_model_that_returns_steps_elsewhere_gives_the_same_scores_time_first(place: int) -> None:
    torch.manual_seed(0)
    model, x = excited(Heads(lambda a, b: a.movedim(0, place))), frames(T, N, 8)
    expected = in_float64(model)(x.double()).movedim(place, 0).detach().numpy()
    np.testing.assert_allclose(heads(lower_graph(model, x), x)[0], expected, rtol=1e-9, atol=1e-9)


# --- loops that are none ------------------------------------------------------------------------------------


class Different(nn.Module):
    """A loop whose first step goes through another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.others, self.lif = nn.Linear(8, 4), nn.Linear(8, 4), snn.Leaky(0.5)

    def forward(self, x):
        mem, rec = self.lif.init_leaky(), []
        for t in range(len(x)):
            spk, mem = self.lif((self.others if t else self.first)(x[t]), mem)
            rec.append(spk)
        return torch.stack(rec)


class Alternating(nn.Module):
    """A loop that records the spikes of two layers in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.a, self.b = nn.Linear(8, 4), snn.Leaky(0.5), snn.Leaky(0.5)

    def forward(self, x):
        mem_a, mem_b, rec = self.a.init_leaky(), self.b.init_leaky(), []
        for t in range(len(x)):
            spk_a, mem_a = self.a(self.fc(x[t]), mem_a)
            spk_b, mem_b = self.b(self.fc(x[t]), mem_b)
            rec.append(spk_b if t % 2 else spk_a)
        return torch.stack(rec)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Different,
            r"'lif' \(Leaky\) is called for two different inputs.*'first'.* call 1, .*'others'.* call 2",
        ),
        (Alternating, r"not one signal step by step: number 1 is what 'a' .* gives, and number 2 what 'b'"),
    ],
)
def test_a_loop_that_differs_between_steps_is_refused_with_what_differs(model: type, message: str) -> None:
    with pytest.raises(deploy.LoweringError, match=message):
        lower_graph(quantize_weights(model()), frames(T, N, 8))


def test_running_sums_are_refused_with_what_to_do() -> None:
    model = quantize_weights(Heads(lambda a, b: a.cumsum(0)))
    with pytest.raises(deploy.LoweringError, match=r"numpy.cumsum\(scores, axis=0\)"):
        lower_graph(model, frames(T, N, 8))
