"""Resets: MFPNode is LIFNode, IFNode and ParametricLIFNode for as long as its kernel reaches back."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode, convert, reset_samples
from mfp_neurons.orders import truncate
from tests.spikingjelly.common import both_modes

T = 6


def run(node: Any, x_seq: torch.Tensor) -> list[torch.Tensor]:
    """Spikes, v_seq and v, and the gradients of the input and of the parameters by all three."""
    x = x_seq.clone().requires_grad_()
    spikes = node(x) if node.step_mode == "m" else torch.stack([node(step) for step in x])
    weight = torch.linspace(-1, 1, spikes.numel(), dtype=spikes.dtype).reshape(spikes.shape)
    loss = (spikes * weight).sum() + node.v.square().sum()
    if node.v_seq is not None:
        loss = loss + (node.v_seq * weight.cos()).sum()
    inputs = [x, *(p for p in node.parameters() if p.requires_grad)]
    values = [spikes, node.v] + ([] if node.v_seq is None else [node.v_seq])
    return [*values, *torch.autograd.grad(loss, inputs)]


def potentials(x_seq, decay, gain, threshold, v_reset, order=None):
    """u of every step before the reset, by its definition: float64, the last ``order`` inputs and spikes."""
    rest, u, spikes = v_reset or 0.0, [], []
    for t in range(len(x_seq)):
        total = torch.zeros_like(x_seq[0])
        silent = torch.ones_like(x_seq[0])
        for j in range(min(t + 1, order or t + 1)):
            if j > 0:
                silent = silent * (1 - spikes[t - j])
                if v_reset is None:
                    total = total - threshold * decay**j * spikes[t - j]
            total = total + gain * decay**j * x_seq[t - j] * (1 if v_reset is None else silent)
        u.append(total + rest)
        spikes.append((u[-1] >= threshold).double())
    return torch.stack(u), torch.stack(spikes)


lifs = given(
    tau=st.floats(1.05, 20.0) | st.just(math.inf),
    decay_input=st.booleans(),
    threshold=st.floats(0.2, 1.5),
    v_reset=st.sampled_from([None, 0.0, -0.3, 0.15]),
    detach=st.booleans(),
    order=st.sampled_from([None, T, T + 3]),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=40)
@both_modes
@lifs
def test_it_is_lifnode_and_ifnode_spike_for_spike_with_their_gradients(
    step_mode, tau, decay_input, threshold, v_reset, detach, order, seed
):
    x_seq = 1.5 * torch.randn(T, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    decay_input = decay_input and tau < math.inf
    decay = 1 - 1 / tau
    u, spikes = potentials(x_seq, decay, 1 - decay if decay_input else 1.0, threshold, v_reset)
    assume(bool(((u - threshold).abs() > 1e-9).all()))  # no tie within rounding
    shared: dict[str, Any] = {
        "v_threshold": threshold, "v_reset": v_reset, "surrogate_function": surrogate.ATan(),
        "detach_reset": detach, "store_v_seq": True,
    }  # fmt: skip
    lif = neuron.IFNode(step_mode="m", **shared)
    if tau < math.inf:
        lif = neuron.LIFNode(tau, decay_input, step_mode="m", **shared)
    node = MFPNode(tau, decay_input, step_mode=step_mode, order=order, **shared)
    ours, theirs = run(node, x_seq), run(lif, x_seq)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[0], spikes)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.dtype == its.dtype
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)
    # before the reset the last potential is above the threshold wherever the neuron has fired
    assert torch.equal(node.neuron_spec().threshold <= u[-1], spikes[-1].bool())


@settings(max_examples=20)
@lifs
def test_learned_decays_have_parametric_lifs_spikes_and_gradients(
    tau, decay_input, threshold, v_reset, detach, order, seed
):
    assume(tau < math.inf)
    x_seq = 1.5 * torch.randn(T, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    shared: dict[str, Any] = {
        "v_threshold": threshold, "v_reset": v_reset, "surrogate_function": surrogate.ATan(),
        "detach_reset": detach, "store_v_seq": True, "step_mode": "m",
    }  # fmt: skip
    lif = neuron.ParametricLIFNode(tau, decay_input, **shared).double()
    node = MFPNode(tau, decay_input, order=order, learnable=True, **shared).double()
    with torch.no_grad():
        node.kernel.decay_logit.copy_(-lif.w)  # 1/tau = sigmoid(w), decay = sigmoid(decay_logit)
    q = torch.sigmoid(lif.w.detach()).item()
    u, _ = potentials(x_seq, 1 - q, q if decay_input else 1.0, threshold, v_reset)
    assume(bool(((u - threshold).abs() > 1e-9).all()))
    *ours, by_logit = run(node, x_seq)
    *theirs, by_w = run(lif, x_seq)
    for mine, its in zip((*ours, -by_logit.sum()), (*theirs, by_w), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-8, atol=1e-8)


@settings(max_examples=30)
@both_modes
@given(
    order=st.integers(1, T - 1),
    v_reset=st.sampled_from([None, 0.0, -0.5]),
    decay_input=st.booleans(),
    cut=st.integers(1, T - 1),
    seed=st.integers(0, 2**16),
)
def test_beyond_its_order_it_is_the_truncated_sums(step_mode, order, v_reset, decay_input, cut, seed):
    x_seq = torch.randn(2 * T, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u, spikes = potentials(x_seq, 2 / 3, 1 / 3 if decay_input else 1.0, 0.4, v_reset, order)
    assume(bool(((u - 0.4).abs() > 1e-9).all()))
    node = MFPNode(
        3.0, decay_input, 0.4, v_reset, order=order, reset="subtract" if v_reset is None else "zero",
        step_mode=step_mode, store_v_seq=True,
    )  # fmt: skip
    parts, recorded = [x_seq[:cut], x_seq[cut:]], []
    if step_mode == "m":
        got = []
        for part in parts:
            got.append(node(part))
            recorded.append(node.v_seq)
        got, v_seq = torch.cat(got), torch.cat(recorded)
    else:
        got, v_seq = torch.stack([node(x) for x in x_seq]), node.v_seq
    assert torch.equal(got, spikes)
    left = u - 0.4 * spikes if v_reset is None else torch.where(spikes > 0, v_reset, u)
    torch.testing.assert_close(v_seq, left, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(steps=st.integers(1, 12), seed=st.integers(0, 2**16), hard=st.booleans(), long=st.booleans())
def test_whole_numbers_agree_on_ties_too(steps, seed, hard, long):
    # tau = 2: eighths are exact for some steps in float32
    x_seq = torch.randint(-8, 17, (steps, 3, 4), generator=torch.Generator().manual_seed(seed)) / 8.0
    shared: dict[str, Any] = {"v_threshold": 1.0, "v_reset": -0.5 if hard else None, "step_mode": "m"}
    lif = neuron.LIFNode(2.0, False, **shared)
    options = {"order": 12} if long else {}
    node = MFPNode(2.0, False, reset="zero" if hard else "subtract", **shared, **options)
    assert torch.equal(node(x_seq), lif(x_seq)) and torch.equal(node.v, lif.v)


@settings(max_examples=15)
@given(
    taps=st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    order=st.integers(1, 4),
    cut=st.integers(1, T - 1),
    detach=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_feedback_adds_its_taps_times_the_own_spikes(taps, order, cut, detach, seed):
    x_seq = torch.randn(T, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    node = MFPNode(
        3.0, False, 0.4, reset="feedback", reset_order=len(taps), order=order, detach_reset=detach,
        step_mode="m", surrogate_function=surrogate.ATan(),
    ).double()  # fmt: skip
    with torch.no_grad():
        node.feedback.taps.copy_(torch.tensor(taps))
    x, r = x_seq.clone().requires_grad_(), node.feedback.taps.detach().clone().requires_grad_()
    spikes: list[torch.Tensor] = []
    for t in range(T):
        u = sum((2 / 3) ** j * x[t - j] for j in range(min(t + 1, order)))
        for j in range(1, min(t, len(taps)) + 1):
            u = u + r[j - 1] * (spikes[t - j].detach() if detach else spikes[t - j])
        assume(bool(((u - 0.4).abs() > 1e-9).all()))
        spikes.append(surrogate.ATan()(u - 0.4))
    expected = torch.stack(spikes)
    mine = x_seq.clone().requires_grad_()
    out = torch.cat([node(mine[:cut]), node(mine[cut:])])
    assert torch.equal(out, expected)
    torch.testing.assert_close(node.v, u)  # nothing is taken from the potential itself
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    ours = torch.autograd.grad((out * weight).sum(), [mine, node.feedback.taps])
    theirs = torch.autograd.grad((expected * weight).sum(), [x, r], allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-9, atol=1e-9)


@both_modes
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.2])
def test_a_potential_set_by_hand_is_gone_on_from_as_lifnode_does(step_mode, v_reset):
    x = torch.randn(T, 2, 3) if step_mode == "m" else torch.randn(2, 3)
    v = torch.randn(2, 3)
    results = []
    for kind in (MFPNode, neuron.LIFNode):
        more = {"reset": "subtract" if v_reset is None else "zero"} if kind is MFPNode else {}
        node = kind(3.0, False, 0.5, v_reset, surrogate.ATan(), step_mode=step_mode, **more)
        for start in (v.clone().requires_grad_(), 0.3):
            node.reset()
            node.v = start
            spikes = node(x)
            results.append([spikes, node.v])
            if isinstance(start, torch.Tensor):
                (spikes.sum() + node.v.square().sum()).backward()
                results[-1].append(start.grad)
    for ours, theirs in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(ours, theirs)


GRADED = [surrogate.ATan(), surrogate.ATan(spiking=False), surrogate.PiecewiseExp()]


@both_modes
@pytest.mark.parametrize("function", GRADED, ids=["ours", "graded", "a user's"])
@pytest.mark.parametrize("order", [None, T])
@pytest.mark.parametrize("v_reset", [None, -0.2])
def test_any_surrogate_is_lifnodes(step_mode, function, order, v_reset):
    x_seq = torch.randn(T, 2, 3, dtype=torch.float64)
    shared: dict[str, Any] = {"surrogate_function": function, "v_reset": v_reset, "store_v_seq": True}
    lif = neuron.LIFNode(3.0, False, 0.5, step_mode="m", **shared)
    reset = "subtract" if v_reset is None else "zero"
    node = MFPNode(3.0, False, 0.5, step_mode=step_mode, reset=reset, order=order, **shared)
    torch.testing.assert_close(run(node, x_seq), run(lif, x_seq))
    with torch.no_grad():
        node.reset(), lif.reset()
        spikes = node(x_seq) if step_mode == "m" else torch.stack([node(x) for x in x_seq])
        torch.testing.assert_close(spikes, lif(x_seq))
        torch.testing.assert_close(node.v, lif.v)


@pytest.mark.parametrize("order", [None, 2])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_what_fires_on_an_infinite_input_is_forgotten_and_an_infinite_threshold_never_fires(order, reset):
    x_seq = torch.tensor([1.0, torch.inf, 0.5, 0.25]).reshape(4, 1, 1)
    if reset == "zero":
        for cuts in ([4], [1, 1, 1, 1], [2, 2]):
            node = MFPNode(2.0, False, step_mode="m", reset=reset, order=order)
            x = x_seq.clone().requires_grad_()
            spikes = torch.cat([node(part) for part in x.split(cuts)])
            assert spikes.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]
            assert node.v.flatten().tolist() == [0.5]
    silent = MFPNode(2.0, False, v_threshold=math.inf, step_mode="m", reset=reset, order=order)
    plain = MFPNode(2.0, False, v_threshold=math.inf, step_mode="m", reset=None, order=order)
    x = torch.randn(4, 2, 3)
    for part in x.split(2):
        assert not silent(part).any() and not plain(part).any()
    torch.testing.assert_close(silent.v, plain.v)


KINDS = {
    "soft": {"v_reset": None, "reset": "subtract"},
    "soft, 3": {"v_reset": None, "reset": "subtract", "order": 3},
    "soft, pow2": {"v_reset": None, "reset": "subtract", "order": 3, "kernel_bits": "pow2"},
    "soft, a channel": {
        "v_reset": None, "reset": "subtract", "order": 3, "learnable": True, "num_channels": 3,
    },
    "soft, pow2 a channel": {
        "v_reset": None, "reset": "subtract", "order": 3, "learnable": True, "num_channels": 3,
        "kernel_bits": "pow2",
    },
    "hard": {"v_reset": -0.2, "reset": "zero"},
    "hard, 3": {"v_reset": -0.2, "reset": "zero", "order": 3},
    "hard, fir": {"v_reset": -0.2, "reset": "zero", "kernel": "fir", "order": 3, "num_channels": 3},
    "feedback": {"reset": "feedback", "order": 3, "num_channels": 3},
}  # fmt: skip
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


def build(options: dict[str, Any], **more: Any) -> MFPNode:
    node = MFPNode(
        **{"tau": 3.0, "v_threshold": 0.3, "surrogate_function": surrogate.ATan(), **options, **more}
    )
    with torch.no_grad():
        for parameter in node.parameters():
            parameter.add_(torch.linspace(-0.3, 0.2, parameter.numel()).reshape(parameter.shape))
    return node


@kinds
@both_modes
def test_a_threshold_for_each_element_is_as_many_neurons(options, step_mode):
    x_seq = torch.randn(T, 2, 3, 2, dtype=torch.float64)
    threshold = 0.1 + torch.rand(2, 3, 2, dtype=torch.float64)
    node = build(options, step_mode=step_mode, store_v_seq=True).double()
    node.v_threshold = threshold.requires_grad_()
    parts = [*x_seq[:4].split(2)] if step_mode == "m" else list(x_seq[:4])
    spikes = torch.cat([node(part).reshape(-1, 2, 3, 2) for part in parts])
    (spikes.sum() + node.v.square().sum()).backward()
    for sample in range(2):
        for place in range(2):  # a threshold of each channel is what the operator takes
            other = build(options, step_mode="m", store_v_seq=True).double()
            other.v_threshold = threshold[sample, :, place].detach().requires_grad_()
            alone = other(x_seq[:4, sample : sample + 1, :, place])
            assert torch.equal(alone, spikes[:, sample : sample + 1, :, place])
            torch.testing.assert_close(other.v, node.v[sample : sample + 1, :, place])
            (alone.sum() + other.v.square().sum()).backward()
            torch.testing.assert_close(other.v_threshold.grad, threshold.grad[sample, :, place])
    assert all(not value._is_view() for value in node.memories() if isinstance(value, torch.Tensor))


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_a_fused_norm_runs_in_front_of_a_reset(options, training):
    torch.manual_seed(0)
    nets = [
        nn.Sequential(
            layer.Conv2d(2, 3, 3, step_mode="m"), layer.BatchNorm2d(3, step_mode="m"),
            build(options, step_mode="m", store_v_seq=True),
        ).train(training)
        for _ in range(2)
    ]  # fmt: skip
    nets[1].load_state_dict(nets[0].state_dict())
    convert(nets[1], fuse=True)
    assert "fused" in repr(nets[1][1])
    x_seq = torch.randn(T, 2, 2, 5, 5)
    results = []
    for net in nets:
        spikes = torch.cat([net(part) for part in x_seq.split(3)])
        (spikes.square().sum() + net[2].v.square().sum()).backward()
        results.append([net[2].v_seq, net[2].v, *(p.grad for p in net.parameters() if p.grad is not None)])
        results[-1].insert(0, spikes)
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-3, atol=1e-4)


@kinds
def test_a_truncated_kernel_takes_its_reset_along(options):
    if "order" not in options:
        pytest.skip("an exponential without an order has no taps to drop")
    x_seq = torch.randn(T, 2, 3)
    long, short = build({**options, "order": 5}), build({**options, "order": 2})
    if options["reset"] == "feedback":
        short = build({**options, "order": 2, "reset_order": 4})
    with torch.no_grad():
        for parameter, other in zip(long.parameters(), short.parameters(), strict=True):
            other.copy_(parameter[: len(other)])
    net = nn.Sequential(long)
    truncate(net, {"0": 2})
    for node in (long, short):
        node.step_mode = "m"
    assert torch.equal(net(x_seq), short(x_seq)) and torch.allclose(long.v, short.v)
    ours, theirs = long.neuron_spec(), short.neuron_spec()
    assert ours.reset.order == theirs.reset.order and ours.carried == theirs.carried
    assert ours.state.all == theirs.state.all
    if ours.reset.taps is not None:
        assert torch.equal(ours.reset.taps, theirs.reset.taps)


def test_the_description_says_what_is_fed_back():
    soft = MFPNode(4.0, False, 0.5, reset="subtract", order=3).neuron_spec()
    assert (soft.reset.kind, soft.reset.order, soft.carried.what, soft.carried.spikes) == (
        "subtract", 2, "inputs", 2,
    )  # fmt: skip
    torch.testing.assert_close(soft.reset.taps, torch.tensor([-0.375, -0.28125], dtype=torch.float64))
    assert soft.state.all == ("v", "history", "last_spikes") and soft.state.last_spikes == "last_spikes"
    hard = MFPNode(v_reset=-0.25, reset="zero", detach_reset=True).neuron_spec()
    assert (hard.reset.kind, hard.reset.order, hard.reset.rest, hard.reset.taps) == (
        "zero",
        None,
        -0.25,
        None,
    )
    assert hard.reset.detach and hard.carried.what == "potential" and hard.carried.spikes == 1
    assert hard.state.all == ("v",) and hard.threshold == 1.0 and hard.continues
    learned = MFPNode(reset="feedback", reset_order=2, order=1)
    assert learned.neuron_spec().state.all == ("v", "last_spikes") and learned.neuron_spec().continues
    assert [name for name, _ in learned.named_parameters()] == ["feedback.taps"]
    assert MFPNode(reset=None).neuron_spec().reset is None


CONTRADICTIONS = [
    ({"reset": "soft"}, ValueError, "reset must be one of"),
    ({"reset": "subtract", "v_reset": 0.5}, ValueError, "v_reset=0.5 .* reset='zero', got reset='subtract'"),
    ({"reset": "feedback", "order": 3, "v_reset": -1.0}, ValueError, "reset='zero', got reset='feedback'"),
    ({"reset": "zero", "v_reset": None}, ValueError, "reset='zero' takes a number for v_reset, got None"),
    ({"reset": "zero", "v_reset": math.nan}, ValueError, "v_reset must be finite"),
    ({"reset": "zero", "v_reset": "0"}, TypeError, "v_reset must be a number"),
    ({"reset": "zero", "reset_order": 2, "order": 3}, ValueError, "reset='zero' takes no reset_order"),
    ({"reset": None, "reset_order": 2}, ValueError, "reset=None takes no reset_order"),
    ({"reset": "subtract", "reset_order": 2}, ValueError, "reset_order=2 needs a finite order"),
    ({"reset": "feedback"}, ValueError, "reset='feedback' needs a finite order"),
    ({"reset": "feedback", "order": 1}, ValueError, "needs reset_order"),
    ({"reset": "zero", "kernel": "matrix", "time_steps": 3}, ValueError, "takes kernel='exp' or 'fir'"),
]


@pytest.mark.parametrize(("options", "error", "words"), CONTRADICTIONS)
def test_a_reset_that_contradicts_another_argument_is_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        MFPNode(**options)


def test_the_default_follows_v_reset():
    def kind(**options: Any) -> str | None:
        reset = MFPNode(**options).neuron_spec().reset
        return None if reset is None else reset.kind

    assert kind() == kind(reset="auto") == "zero"
    assert kind(v_reset=None) == "subtract" and kind(v_reset=0.0) == "zero" and kind(v_reset=-1) == "zero"
    assert kind(v_reset=None, order=3, reset_order=1) == "subtract"
    assert kind(v_reset=0.0, kernel="matrix", time_steps=3) is None


def test_what_a_reset_is_can_be_changed_as_far_as_lifnode_code_does():
    node = MFPNode(v_reset=-0.5, reset="zero")
    assert node.v_reset == -0.5 and node.v == -0.5
    node.detach_reset = True
    assert node.neuron_spec().reset.detach
    node.v_reset = -0.5
    with pytest.raises(ValueError, match=r"v_reset of a neuron with reset='zero' stays -0\.5, got None"):
        node.v_reset = None
    assert "v_reset=-0.5" in repr(node) and "detach_reset=True" in repr(node)
    assert MFPNode(v_reset=None, reset="subtract").v_reset is None


def test_samples_that_are_reset_start_at_v_reset():
    node = MFPNode(v_reset=-0.5, reset="zero", order=3)
    node(torch.ones(2, 3))
    reset_samples(node, torch.tensor([0]))
    assert node.v[0].eq(-0.5).all() and not node.v[1].eq(-0.5).any()


@both_modes
def test_networks_with_resets_are_reset_and_detached_as_lifnodes_are(step_mode):
    net = nn.Sequential(nn.Linear(3, 3), MFPNode(reset="feedback", order=2), MFPNode(reset="zero", order=2))
    functional.set_step_mode(net, step_mode)
    x = torch.randn(T, 2, 3) if step_mode == "m" else torch.randn(2, 3)
    net(x)
    functional.detach_net(net)
    assert not any(value.requires_grad for value in net[1].memories())
    functional.reset_net(net)
    assert [value for value in net[1].memories() if value is not None] == [0.0, 0.0, 0.0]


@kinds
def test_a_network_with_a_reset_compiles(options):
    net = nn.Sequential(nn.Linear(3, 3), build(options, step_mode="m"))
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(net), backend="aot_eager", fullgraph=True)
    x = torch.randn(T, 2, 3)
    expected, out = net(x), compiled(x)
    assert torch.equal(expected, out)
    expected.sum().backward(), out.sum().backward()
    for ours, theirs in zip(net.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing_but_the_inputs_dtype(options, dtype):
    node, other = build(options, step_mode="m"), build(options, step_mode="m")
    x = torch.randn(T, 2, 3).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = node(x)
    assert spikes.dtype == dtype and torch.equal(spikes, other(x)) and torch.equal(node.v, other.v)
    assert node.v.dtype == torch.float32


@kinds
@both_modes
def test_the_meta_device_says_shapes(options, step_mode):
    node = build(options, step_mode=step_mode, store_v_seq=True).to("meta")
    x = torch.empty((T, 2, 3) if step_mode == "m" else (2, 3), device="meta")
    assert node(x).shape == node(x).shape == x.shape
    assert all(value.is_meta for value in node.memories() if isinstance(value, torch.Tensor))
