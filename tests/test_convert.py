"""Swapping neurons: the new network is the old one without its reset, all of it or nothing."""

import copy
import math
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, QuantizedMembraneLIF, convert, quantize_weights
from mfp_neurons import surrogate as fused

snn = pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")
pytest.importorskip("spikingjelly", reason="the 'spikingjelly' extra is not installed")

from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: E402

from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, known_surrogate  # noqa: E402
from mfp_neurons.spikingjelly import MFPNode  # noqa: E402

STEPS = 9


@pytest.fixture(autouse=True)
def _instances_as_before():
    before = len(snn.SpikingNeuron.instances)
    yield
    del snn.SpikingNeuron.instances[before:]


def snn_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6),
        snn.Leaky(0.8, init_hidden=True, reset_mechanism="none"),
        nn.Linear(6, 5),
        snn.Leaky(0.7, threshold=0.5, init_hidden=True, reset_mechanism="none"),
        nn.Linear(5, 3),
        snn.Leaky(0.9, init_hidden=True, output=True, reset_mechanism="none"),
    )


def sj_net() -> nn.Sequential:
    net = nn.Sequential(
        layer.Linear(4, 6),
        neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
        layer.Linear(6, 5),
        neuron.ParametricLIFNode(init_tau=3.0),
        layer.Linear(5, 3),
        neuron.IFNode(v_threshold=0.5),
    )
    functional.set_step_mode(net, "m")
    return net


class Fingerprint:
    """Everything about a model that a refused conversion must not touch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.before = self.of_now()

    def of_now(self) -> object:
        return (
            [
                (path, module, type(module))
                for path, module in self.model.named_modules(remove_duplicate=False)
            ],
            [(name, id(p), p.requires_grad) for name, p in self.model.named_parameters()],
            sorted(vars(self.model)),
            list(snn.SpikingNeuron.instances),
        )

    def assert_unchanged(self) -> None:
        assert self.of_now() == self.before


# --- what becomes of snnTorch's neurons ---


def stepwise(net: nn.Module, x_seq: Tensor) -> list[Tensor]:
    return [torch.stack(rows) for rows in zip(*(net(x) for x in x_seq), strict=True)]


def test_a_network_without_reset_keeps_its_outputs_and_its_gradients():
    net, x_seq = snn_net(), torch.randn(STEPS, 3, 4)
    expected = stepwise(net, x_seq)
    grads = torch.autograd.grad(expected[1].sum() + expected[0].sum(), list(net.parameters()))
    assert convert(net) is net
    assert [type(module) for module in net if not isinstance(module, nn.Linear)] == [MFPLeaky] * 3
    got = stepwise(net, x_seq)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    for a, b in zip(
        torch.autograd.grad(sum(map(torch.sum, got)), list(net.parameters())), grads, strict=True
    ):
        torch.testing.assert_close(a, b)


def test_everything_that_is_set_or_learned_is_kept():
    old = snn.Leaky(
        torch.tensor([0.3, 0.6]), threshold=0.7, spike_grad=snn.surrogate.fast_sigmoid(9), init_hidden=True,
        learn_beta=True, learn_threshold=True, output=True, graded_spikes_factor=2.0,
        learn_graded_spikes_factor=True, state_quant=torch.round,
    ).eval()  # fmt: skip
    old.threshold.requires_grad_(False)
    new = convert(old)
    assert isinstance(new, MFPLeaky) and not new.training
    assert list(new.state_dict()) == list(old.state_dict())
    for name in ("beta", "threshold", "graded_spikes_factor"):
        mine, theirs = getattr(new, name), getattr(old, name)
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
        assert isinstance(mine, nn.Parameter) and mine.requires_grad == theirs.requires_grad
    assert known_surrogate(new.spike_grad) == known_surrogate(old.spike_grad)
    for name in ("init_hidden", "output", "state_quant", "inhibition", "surrogate_disable"):
        assert getattr(new, name) == getattr(old, name)


@pytest.mark.parametrize("make", [
    lambda: snn.Lapicque(0.9, reset_mechanism="none"),
    lambda: snn.Lapicque(R=2.0, C=3.0, time_step=0.5, threshold=0.2, reset_mechanism="none"),
    lambda: snn.Lapicque(torch.tensor([0.8]), R=0.5, learn_beta=False, reset_mechanism="none"),
])  # fmt: skip
@pytest.mark.parametrize(
    "options", [{}, {"order": STEPS}, {"kernel": "fir", "order": STEPS, "num_channels": 3}]
)
def test_a_lapicque_keeps_the_potential_that_its_r_and_c_give_it(make, options):
    old, x_seq = make(), torch.randn(STEPS, 2, 3)
    expected = stepwise(old, x_seq)
    new = convert(old, **options)
    got = stepwise(new, x_seq)
    torch.testing.assert_close(got[1], expected[1])
    clear = (expected[1] - old.threshold).abs() > 1e-5
    assert torch.equal(got[0][clear], expected[0][clear])


def test_a_lapicque_answers_what_code_written_for_one_asks():
    old = snn.Lapicque(R=5.1, C=5e-3, time_step=1e-3)
    new, state = convert(old), old.state_dict()
    for name in ("R", "C", "time_step"):
        assert torch.equal(getattr(new, name), getattr(old, name))
    assert new.double().R.dtype == torch.float64  # they move with the module
    new.float()
    mem = new.init_lapicque()
    for x in torch.rand(STEPS, 2, 3):
        _, mem = new(x, mem)
    assert mem.shape == (2, 3) and not bool(new.init_lapicque().any())
    with pytest.raises(RuntimeError, match="Unexpected key"):  # its beta is not this neuron's
        new.load_state_dict(state)


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.5, 0.8), (0.7, 0.7), (torch.rand(3), torch.rand(3)), (0.9, 1.4)]
)
def test_a_synaptic_becomes_the_taps_of_its_two_decays(alpha, beta):
    x_seq = torch.randn(STEPS, 2, 3)
    old = snn.Synaptic(alpha, beta, init_hidden=True, reset_mechanism="none")
    expected = []
    for x in x_seq:
        old(x)
        expected.append(old.mem)
    new = convert(old, order=STEPS)
    got = []
    for x in x_seq:
        assert isinstance(new(x), Tensor)
        got.append(new.mem)
    torch.testing.assert_close(torch.stack(got), torch.stack(expected))
    assert not any(p.requires_grad for p in new.parameters())
    learned = convert(snn.Synaptic(alpha, beta, init_hidden=True, learn_alpha=True), order=3)
    assert learned.kernel.taps.requires_grad


@pytest.mark.skipif(not hasattr(snn, "StateLeaky"), reason="snnTorch before 1.0 has no StateLeaky")
@pytest.mark.parametrize("truncation", [None, 3])
def test_a_state_leaky_keeps_its_own_decay_and_its_squared_factor(truncation):
    old = snn.StateLeaky(
        torch.tensor([0.5, 0.9, 0.3]),
        channels=3,
        graded_spikes_factor=3.0,
        kernel_truncation_steps=truncation,
    )
    x_seq = torch.randn(STEPS, 2, 3)
    new = convert(old)
    assert isinstance(new, MFPLeakyParallel)
    torch.testing.assert_close(new(x_seq), old(x_seq))


LEFT = [
    (lambda: snn.RLeaky(0.5, linear_features=3), "feed back into it"),
    (lambda: snn.RSynaptic(0.5, 0.5, linear_features=3), "feed back into it"),
    (lambda: snn.Alpha(0.9, 0.8), r"\(spk, syn_exc, syn_inh, mem\)"),
    (lambda: snn.SLSTM(3, 3), "recurrent cell"),
    (lambda: snn.LeakyParallel(3, 3), "linear layer inside"),
    (lambda: snn.Synaptic(0.5, 0.5), r"\(spk, syn, mem\)"),
    (lambda: snn.Synaptic(0.5, 0.5, init_hidden=True), "order"),
    (lambda: snn.Lapicque(R=0.5, C=0.5), "leak"),
    (lambda: type("Mine", (snn.Leaky,), {})(0.5), "subclass of Leaky"),
    (lambda: MFPLeaky(0.5, reset_mechanism="none"), "memory-free already"),
    (lambda: MFPLeakyParallel(0.5, reset_mechanism="none"), "memory-free already"),
    (lambda: MFPNode(reset=None), "memory-free already"),
    (lambda: MFP(), "memory-free already"),
    (lambda: QuantizedMembraneLIF(), "baseline"),
    (lambda: neuron.QIFNode(), "no rule is known"),
    (lambda: neuron.PSN(4), "future steps"),
    (lambda: neuron.MaskedPSN(k=2, T=4, step_mode="m"), "future steps"),
    (lambda: type("Mine", (neuron.LIFNode,), {})(), "subclass of LIFNode"),
    (
        lambda: patched(neuron.LIFNode(), "single_step_forward"),
        "single_step_forward was replaced on this object",
    ),
    (lambda: patched(snn.Leaky(0.5), "forward"), "forward was replaced on this object"),
]


def patched(module: nn.Module, method: str) -> nn.Module:
    setattr(module, method, lambda x: x)
    return module


@pytest.mark.parametrize(("make", "why"), LEFT)
def test_neurons_that_stay_are_listed_with_the_reason(make, why):
    stays = make()
    net = nn.Sequential(nn.Linear(3, 3), snn.Leaky(0.5), stays)
    convert(net)
    assert net[2] is stays
    (left,) = net.mfp_conversion.left
    assert left.path == "2" and re.search(why, left.why)
    assert left.why in str(net.mfp_conversion) and "left alone" in str(net.mfp_conversion)
    assert [swap.path for swap in net.mfp_conversion.swapped] == ["1"]


def test_a_neuron_that_stays_is_said_and_one_that_is_memory_free_is_not(said):
    convert(nn.Sequential(snn.Leaky(0.5), MFP(), snn.Alpha(0.9, 0.8), snn.Alpha(0.9, 0.8)))
    assert said.text.count("is left alone") == 1 and "'2', Alpha" in said.text


WITH_A_POTENTIAL = [
    *(
        (make, f"leaves it as it is: .*{why}")
        for make, why in LEFT
        if not re.search("memory-free|layer|leak", why) and not isinstance(make(), snn.RLeaky)  # which lowers
    ),
    (lambda: snn.Lapicque(R=0.5, C=0.5), "Its leak time_step / .R C. is 4.0"),
    (lambda: snn.StateLeaky(0.5, channels=3), r"convert\(model\) makes it memory-free"),
]


@pytest.mark.parametrize(("make", "words"), WITH_A_POTENTIAL)
@pytest.mark.parametrize("way", ["integers", "NIR"])
def test_a_neuron_that_keeps_a_potential_is_told_of_convert_where_that_would_help(make, words, way):
    from mfp_neurons import deploy, nir

    net = quantize_weights(nn.Sequential(nn.Linear(3, 3), make()))
    out, error = (deploy.lower, ValueError) if way == "integers" else (nir.to_nir, nir.NIRError)
    with pytest.raises(error, match=f"'1'.*{words}"):
        out(net, torch.ones(2, 1, 3))


def test_a_read_out_with_an_infinite_threshold_is_swapped_and_never_fires():
    net = sj_net()
    net[5].v_threshold = math.inf
    convert(net)
    assert net[5].v_threshold == math.inf and "v_threshold=inf" in str(net.mfp_conversion)
    net[5].store_v_seq = True
    assert not bool(net(torch.rand(STEPS, 2, 4)).any()) and net[5].v_seq.shape == (STEPS, 2, 3)


# --- weights of few bits in front of a neuron ---


@pytest.mark.parametrize(
    ("bits", "norm", "expected"),
    [
        (1, None, ("3",)),
        (1.58, None, ("3",)),
        (2, None, ("3",)),
        (4, None, ()),
        (None, None, ()),
        (1, nn.BatchNorm1d, ()),
        (1, nn.LayerNorm, ()),
    ],
)
def test_neurons_behind_few_bits_without_a_normalization_are_named(said, bits, norm, expected):
    middle = [nn.Linear(6, 5), *([] if norm is None else [norm(5)])]
    net = nn.Sequential(
        nn.Linear(4, 6), snn.Leaky(0.8), *middle, snn.Leaky(0.7), nn.Linear(5, 3), snn.Leaky(0.9)
    )
    convert(net, weight_bits=bits)
    assert net.mfp_conversion.unnormalized == expected
    words = "no normalization between weights of few bits and '3'"
    assert (words in str(net.mfp_conversion)) == (words in said.text) == bool(expected)


# --- what becomes of SpikingJelly's neurons ---


def quiet(net: nn.Module) -> list[nn.Module]:
    """Thresholds that are never reached, so that no neuron resets."""
    found = [module for module in net.modules() if isinstance(module, neuron.BaseNode)]
    for node in found:
        node.v_threshold, node.store_v_seq = 1e9, True
    return found


def test_spikingjelly_neurons_keep_potential_threshold_surrogate_and_step_mode():
    net, x_seq = sj_net(), torch.randn(STEPS, 3, 4)
    old = [net[i] for i in (1, 3, 5)]
    convert(net)
    new = [net[i] for i in (1, 3, 5)]
    assert all(isinstance(node, MFPNode) for node in new)
    for before, after in zip(old, new, strict=True):
        assert after.v_threshold == before.v_threshold and after.step_mode == "m"
        assert type(after.surrogate_function) is type(before.surrogate_function)
    for before, after in zip(old, new, strict=True):
        quiet(before), quiet(after)
        before(x_seq), after(x_seq)
        torch.testing.assert_close(after.v_seq, before.v_seq)
    net(x_seq).sum().backward()
    assert net[3].kernel.decay_logit.grad is not None  # ParametricLIFNode's learned decay


def test_reset_net_reaches_the_new_neurons_though_it_ran_before_the_swap():
    net, x_seq = sj_net(), torch.rand(STEPS, 3, 4)
    net(x_seq)
    functional.reset_net(net)  # 2.0.0 remembers the modules that it has reset
    convert(net)
    first = net(x_seq)
    functional.reset_net(net)
    assert torch.equal(net(x_seq), first)


def test_one_model_may_hold_neurons_of_both_frameworks():
    net = nn.Sequential(sj_net(), nn.Sequential(snn.Leaky(0.5, init_hidden=True)))
    convert(net, order=[1, 2, 3, 4])
    assert [swap.path for swap in net.mfp_conversion.swapped] == ["0.1", "0.3", "0.5", "1.0"]
    assert [net[0][i].kernel.order for i in (1, 3, 5)] == [1, 2, 3] and net[1][0].kernel.order == 4


# --- the class asked for ---


def test_whole_sequence_neurons_take_the_place_of_stepwise_ones_when_asked_for():
    net, x_seq = snn_net(), torch.randn(STEPS, 3, 4)
    expected = stepwise(net, x_seq)
    convert(net, to=MFPLeakyParallel)
    spk, mem = net(x_seq)
    torch.testing.assert_close(mem, expected[1])
    assert torch.equal(spk, (mem > 1).float())


@pytest.mark.parametrize("strict", [False, True])
def test_plain_mfp_keeps_each_frameworks_rule_for_ties(strict):
    learned = {"learn_beta": True, "learn_threshold": True}
    old = snn.Leaky(0.5, **learned) if strict else neuron.LIFNode(2.0, False, step_mode="m")
    new = convert(old, to=MFP)
    assert type(new) is MFP and new.strict is strict
    assert new.surrogate == (fused.ATan(2.0) if strict else fused.Sigmoid(4.0))
    assert new(torch.ones(1, 1)).item() == (0.0 if strict else 1.0)
    assert len(list(new.parameters())) == (2 if strict else 0)


@pytest.mark.parametrize(
    ("make", "to", "words"),
    [
        (lambda: snn.Leaky(0.5), MFPNode, "MFPLeaky, MFPLeakyParallel or MFP"),
        (lambda: neuron.LIFNode(), MFPLeaky, "MFPNode or MFP"),
        (lambda: neuron.LIFNode(), MFP, "step_mode is 's'"),
        (lambda: neuron.LIFNode(step_mode="m", store_v_seq=True), MFP, "store_v_seq"),
        (lambda: snn.Leaky(torch.rand(3)), MFP, "one beta"),
        (lambda: snn.Leaky(0.5, graded_spikes_factor=2.0), MFP, "graded_spikes_factor"),
        (lambda: snn.Leaky(0.5, state_quant=torch.round), MFP, "state_quant"),
        (lambda: snn.Leaky(0.5, surrogate_disable=True), MFP, "surrogate_disable"),
        (lambda: snn.Lapicque(0.5), MFP, "gain"),
    ],
)
def test_a_class_that_cannot_do_it_is_refused_and_nothing_changes(make, to, words):
    net = nn.Sequential(nn.Linear(3, 3), make())
    before = Fingerprint(net)
    with pytest.raises(ValueError, match=words):
        convert(net, to=to)
    before.assert_unchanged()


# --- orders ---


@pytest.mark.parametrize("make", [snn_net, sj_net])
@given(orders=st.lists(st.none() | st.integers(1, 40), min_size=3, max_size=3))
@settings(max_examples=15)
def test_orders_are_given_to_all_by_a_list_or_by_path(make, orders):
    paths = ("1", "3", "5")
    some = {path: order for path, order in zip(paths, orders, strict=True) if order is not None}
    for given_orders in (orders, dict(zip(paths, orders, strict=True)), some):
        net = convert(make(), order=given_orders)
        assert [net.get_submodule(path).kernel.order for path in paths] == orders
    net = convert(make(), order=orders[0])
    assert [net.get_submodule(path).kernel.order for path in paths] == [orders[0]] * 3


def test_every_path_of_a_shared_neuron_names_it_and_it_stays_shared():
    net = nn.ModuleDict({"a": snn.Leaky(0.5), "b": nn.Linear(2, 2)})
    net["c"] = nn.Sequential(net["a"])
    convert(net, order={"c.0": 4})
    assert net["a"] is net["c"][0] and net["a"].kernel.order == 4
    assert [swap.path for swap in net.mfp_conversion.swapped] == ["a"]


# --- per-channel kernels ---


def test_channels_come_from_the_layer_before():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), neuron.LIFNode(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), snn.Leaky(0.5),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 6), neuron.LIFNode(), nn.GroupNorm(2, 6), snn.Leaky(0.5),
    )  # fmt: skip
    convert(net, num_channels="auto", learnable=True)
    assert [net[i].kernel.num_channels for i in (1, 4, 8, 10)] == [3, 4, 6, 6]
    assert net[4].beta.shape == (4,) and net[4].beta.requires_grad
    out = net[4](net[3](net[2](torch.randn(2, 3, 6, 6))))[0]
    assert out.shape == (2, 4, 6, 6)


@pytest.mark.parametrize("between", [[], [nn.Linear(2, 8), nn.Flatten()]])
def test_unknown_channels_are_refused(between):
    net = nn.Sequential(*between, snn.Leaky(0.5))
    before = Fingerprint(net)
    with pytest.raises(ValueError, match="num_channels='auto'"):
        convert(net, num_channels="auto")
    before.assert_unchanged()


# --- weights ---


def test_weights_are_quantized_in_the_same_call():
    net = convert(snn_net(), weight_bits=1, order=2)
    assert [net[i].weight_bits for i in (0, 2, 4)] == [8, 1, 8]
    assert net.mfp_conversion.weight_bits == "1" and "1 bits" in str(net.mfp_conversion)
    net(torch.randn(2, 4))
    plain = convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), weight_bits="ternary")
    assert plain[1].weight_bits == 1.58 and plain.mfp_conversion.swapped == ()


# --- all or nothing ---


def _monitored() -> nn.Module:
    net = snn_net()
    net[3].register_forward_hook(lambda *_: None)
    return net


def _in_a_list() -> nn.Module:
    net = snn_net()
    net.spiking = [net[1], net[3]]
    return net


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (snn_net, {"order": 0}, ValueError, "order"),
        (snn_net, {"order": 2.5}, TypeError, "order"),
        (snn_net, {"order": [1, 2]}, ValueError, r"3 \('1', '3', '5'\), got 2"),
        (snn_net, {"order": [1, 2, 0]}, ValueError, r"order\[2\]"),
        (snn_net, {"order": {"7": 1}}, ValueError, "path of no neuron; the closest are"),
        (snn_net, {"order": {"0": 1}}, ValueError, "path of no neuron"),
        (snn_net, {"kernel": "fir"}, ValueError, r"'1' \(Leaky\): kernel='fir' needs order"),
        (snn_net, {"kernel_bits": "pow2"}, ValueError, r"'1' \(Leaky\).*needs order"),
        (snn_net, {"no_such": 1}, TypeError, r"'1' \(Leaky\).*no_such"),
        (snn_net, {"weight_bits": 77}, ValueError, "bits"),
        (snn_net, {"to": "MFP"}, TypeError, "to must be"),
        (sj_net, {"no_such": 1}, TypeError, r"'1' \(LIFNode\).*no_such"),
        (sj_net, {"order": {"3": 0}}, ValueError, r"order\['3'\]"),
        (_monitored, {}, ValueError, r"'3' \(Leaky\) has hooks"),
        (_in_a_list, {}, ValueError, "spiking, a plain list"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), {}, ValueError, "no neuron"),
        (lambda: nn.DataParallel(snn_net()), {}, ValueError, "inside DataParallel"),
        (
            lambda: nn.Sequential(snn.Leaky(0.5), snn.RLeaky(0.5, linear_features=3)),
            {"order": {"1": 4}},
            ValueError,
            "stays as it is",
        ),
        (
            lambda: nn.Sequential(snn.Leaky(0.5), snn.Synaptic(0.5, 0.5)),
            {"order": [2, 3]},
            ValueError,
            "stays",
        ),
        (
            lambda: nn.Sequential(snn.Leaky(0.5), snn.Leaky(0.5), snn.Leaky(0.5, state_quant=torch.round)),
            {"to": MFPLeakyParallel},
            NotImplementedError,
            "state_quant",
        ),
        (
            lambda: nn.Sequential(neuron.LIFNode(), neuron.PSN(4)),
            {"kernel": "exp"},
            ValueError,
            r"'1' \(PSN\).*kernel='matrix'",
        ),
        (lambda: nn.Sequential(neuron.LIFNode(), neuron.PSN(4)), {"order": {"1": 2}}, ValueError, "stays"),
    ],
)
def test_an_impossible_request_changes_nothing(make, options, error, words):
    net = make()
    before = Fingerprint(net)
    with pytest.raises(error, match=words):
        convert(net, **options)
    before.assert_unchanged()


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="model must be"):
        convert([snn.Leaky(0.5)])


# --- the record, and models as they are used ---


def test_a_model_that_is_a_neuron_is_returned_new():
    old = snn.Leaky(0.5)
    new = convert(old, order=2)
    assert isinstance(new, MFPLeaky) and new is not old
    assert "(model)" in str(new.mfp_conversion) and not hasattr(old, "mfp_conversion")


def test_the_record_travels_with_copies_and_pickles():
    net = convert(nn.Sequential(nn.Linear(2, 2), snn.Leaky(0.5, spike_grad=fused.ATan())))
    record = net.mfp_conversion
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.mfp_conversion == record
    lines = str(record).splitlines()
    assert len(lines) == 1 and "Leaky(beta=0.5" in lines[0] and "->  MFPLeaky(beta=0.5" in lines[0]


def test_converting_twice_says_that_there_is_nothing_left_to_do():
    net = convert(snn_net())
    before = list(net)
    convert(net)
    assert list(net) == before
    assert [left.why for left in net.mfp_conversion.left] == ["it is memory-free already"] * 3


def test_a_new_neuron_is_on_the_device_and_in_the_mode_of_the_old_one():
    net = nn.Sequential(nn.Linear(2, 3, device="meta"), neuron.LIFNode(), nn.Sequential(snn.Leaky(0.5)))
    net[1].eval()
    convert(net, kernel="fir", order=3)
    assert net[1].kernel.taps.device.type == "meta" and not net[1].training
    assert net[2][0].kernel.taps.device.type == "cpu" and net[2][0].training


def test_a_converted_residual_network_trains():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = layer.Conv2d(3, 3, 3, padding=1), layer.BatchNorm2d(3)
            self.neuron = neuron.LIFNode()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.neuron(self.norm(self.conv(x)))

    net = nn.Sequential(Block(), Block())
    functional.set_step_mode(net, "m")
    convert(net, order=[2, 4], kernel_bits="pow2", num_channels="auto", kernel="fir", weight_bits=1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    before = net[0].neuron.kernel.taps.clone()
    for _ in range(2):
        functional.reset_net(net)
        optimizer.zero_grad()
        net(torch.rand(4, 2, 3, 5, 5)).square().mean().backward()
        optimizer.step()
    assert net[0].neuron.kernel.taps.shape == (2, 3) and not torch.equal(net[0].neuron.kernel.taps, before)


def test_nothing_is_said_in_the_log_about_a_plain_swap(said):
    stepwise(convert(snn_net(), reset="keep"), torch.randn(3, 2, 4))
    convert(sj_net(), reset="keep")
    assert said.text == ""
