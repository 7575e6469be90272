"""convert(fuse=True): a batch norm and its neuron as one operator, in models that look as they did before."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mfp_neurons import MFPNode, convert, quantize_weights, report
from mfp_neurons.spikingjelly.norms import FusedNorm
from tests.spikingjelly.common import COPIES, V2, only_v2
from tests.spikingjelly.test_zoo import NEW_STYLE, OLD_STYLE


def lif(**options) -> neuron.LIFNode:
    return neuron.LIFNode(tau=2.0, v_threshold=0.3, surrogate_function=surrogate.ATan(), **options)


def in_steps(net: nn.Module, mode: str = "m") -> nn.Module:
    functional.set_step_mode(net, mode)
    return net


def small_net(norm: nn.Module | None = None) -> nn.Sequential:
    norm = layer.BatchNorm2d(3) if norm is None else norm
    return in_steps(nn.Sequential(layer.Conv2d(2, 3, 3), norm, lif(), layer.Flatten(), layer.Linear(48, 4)))


def twins(net: nn.Module, **options) -> tuple[nn.Module, nn.Module]:
    """A model converted without and with fusing, in float64."""
    net.double()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    plain = convert(copy.deepcopy(net), **options)
    return plain, convert(net, fuse=True, **options)


def results(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, states, every gradient and buffer after one step of training."""
    torch.manual_seed(0)  # for dropout
    net.zero_grad()
    x = x.clone().requires_grad_()
    out = net(x)
    out.square().sum().backward()
    functional.detach_net(net)
    states = [m.v for m in net.modules() if isinstance(m, MFPNode)]
    states += [m.v_seq for m in net.modules() if isinstance(m, MFPNode) and m.store_v_seq]
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return [out, x.grad, *(torch.as_tensor(v) for v in states), *gradients, *net.buffers()]


def assert_same(fused: nn.Module, plain: nn.Module, x: torch.Tensor) -> None:
    for mode in (True, False):
        mine, theirs = (results(net.train(mode), x) for net in (fused, plain))
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)
    assert [key for key, _ in fused.named_buffers()] == [key for key, _ in plain.named_buffers()]


# --- the pair ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(order=3),
        dict(kernel="fir", order=2, num_channels="auto"),
        dict(kernel="matrix", time_steps=15),
        dict(learnable=True, num_channels="auto"),
        dict(order=1, store_v_seq=True),
        dict(kernel="fir", order=9, kernel_bits="pow2"),
    ],
    ids=str,
)
def test_the_fused_pair_computes_what_the_two_did(options):
    plain, fused = twins(small_net(), **options)
    assert isinstance(fused[1], FusedNorm)
    assert_same(fused, plain, torch.randn(5, 2, 2, 6, 6, dtype=torch.float64))  # states carry over


@pytest.mark.parametrize(
    "settings",
    [
        dict(momentum=None),
        dict(momentum=0.7, eps=0.1),
        dict(affine=False),
        dict(track_running_stats=False),
        dict(affine=False, track_running_stats=False),
    ],
    ids=str,
)
def test_every_setting_of_the_batch_norm_means_what_it_did(settings):
    plain, fused = twins(small_net(layer.BatchNorm2d(3, **settings)))
    assert fused.mfp_conversion.fused[0].path == "1"
    assert_same(fused, plain, torch.randn(4, 2, 2, 6, 6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        pytest.param(layer.BatchNorm1d, (4, 3, 5), marks=only_v2),
        (layer.BatchNorm1d, (4, 3, 5, 7)),
        (layer.BatchNorm2d, (4, 3, 5, 2, 2)),
        (layer.BatchNorm3d, (4, 3, 5, 2, 1, 2)),
    ],
)
def test_batch_norms_of_all_dimensions_are_fused(norm, shape):
    plain, fused = twins(in_steps(nn.Sequential(norm(5), lif())))
    assert isinstance(fused[0], FusedNorm) and isinstance(fused[0], norm)
    assert_same(fused, plain, torch.randn(shape, dtype=torch.float64))


def test_frozen_statistics_in_a_network_that_trains_stay_frozen():
    plain, fused = twins(small_net())
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    for net in (plain, fused):
        net.train()[1].eval()
    torch.testing.assert_close(results(fused, x), results(plain, x), rtol=1e-7, atol=1e-9)
    assert fused[1].num_batches_tracked == 0


class Foreign(nn.Module):
    def forward(self, above):
        return surrogate.ATan()(above)


def per_element(net: nn.Module) -> None:
    net[2].v_threshold = torch.linspace(-0.2, 0.5, 2 * 3 * 16, dtype=torch.float64).reshape(2, 3, 4, 4)


CHANGES = {
    "a surrogate of one's own": lambda net: setattr(net[2], "surrogate_function", Foreign()),
    "a threshold for each element": per_element,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_the_operator_does_not_know_runs_one_after_the_other(change):
    plain, fused = twins(small_net())
    for net in (plain, fused):
        change(net)
    assert_same(fused, plain, torch.randn(4, 2, 2, 6, 6, dtype=torch.float64))


def test_step_by_step_it_runs_as_before():
    plain, fused = twins(small_net())
    sequence = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    for net in (in_steps(plain, "s"), in_steps(fused, "s")):
        net.train()
    for x in sequence:
        torch.testing.assert_close(results(fused, x), results(plain, x))


def test_the_pair_keeps_the_input_of_the_batch_norm_and_nothing_else_of_its_size():
    def saved(net):
        x = torch.randn(4, 8, 5, 20, 20, requires_grad=True)
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(x * 1.0)
        return x, sizes.values()

    x, sizes = saved(convert(in_steps(nn.Sequential(layer.BatchNorm2d(5), lif())), fuse=True))
    assert max(sizes) == x.nbytes and sum(sizes) <= x.nbytes + 1000
    _, sizes = saved(convert(in_steps(nn.Sequential(layer.BatchNorm2d(5), lif()))))
    assert sum(sizes) >= 2 * x.nbytes


def test_the_batch_norm_says_what_became_of_it():
    _, fused = twins(small_net())
    assert "FusedBatchNorm2d(3," in repr(fused[1]) and "fused into 2" in repr(fused)
    assert "1  BatchNorm2d(3)" in str(fused.mfp_conversion) and "fused into  2" in str(fused.mfp_conversion)
    again = convert(fused, fuse=True)
    assert again.mfp_conversion.unfused[0].why == "it is fused already"


# --- the model around it ----------------------------------------------------------------------------------


def test_state_dicts_go_both_ways():
    plain, fused = twins(small_net())
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    fused(x)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(fused.state_dict(), strict=True)
    functional.reset_net(fused)
    assert torch.equal(fused.eval()(x), plain.eval()(x))
    other = convert(small_net().double(), fuse=True)
    other.load_state_dict(plain.state_dict(), strict=True)
    functional.reset_net(plain)
    assert torch.equal(other.eval()(x), plain(x))


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES.keys())
def test_copies_are_fused_and_their_own(how):
    _, fused = twins(small_net())
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    other = how(fused)
    assert isinstance(other[1], FusedNorm) and other[1] is not fused[1]
    before = fused[1].running_mean.clone()
    torch.testing.assert_close(results(other, x), results(copy.deepcopy(fused), x), rtol=0, atol=0)
    assert torch.equal(fused[1].running_mean, before) and not torch.equal(other[1].running_mean, before)


def test_moving_resetting_and_other_dtypes_reach_both_halves():
    _, fused = twins(small_net())
    fused.float()
    x = torch.randn(4, 2, 2, 6, 6)
    assert fused(x).dtype == torch.float32
    functional.reset_net(fused)
    assert fused[2].v == 0.0
    assert fused.to("meta")(x.to("meta")).shape == (4, 2, 4)


def test_autocast_runs_the_pair_on_16_bits():
    _, fused = twins(small_net())
    fused.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = fused(torch.randn(4, 2, 2, 6, 6))
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in fused.parameters())


@pytest.mark.parametrize(
    ("backend", "momentum"),
    [("aot_eager", 0.1), ("aot_eager", None), pytest.param("inductor", 0.1, marks=pytest.mark.slow)],
)
def test_compiled_models_have_one_graph_and_the_eager_results(backend, momentum):
    torch._dynamo.reset()
    _, fused = twins(small_net(layer.BatchNorm2d(3, momentum=momentum)))
    eager = copy.deepcopy(fused)
    compiled = torch.compile(fused, fullgraph=True, backend=backend)
    for mode in (True, False):
        for _ in range(2):
            x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
            functional.reset_net(fused)
            functional.reset_net(eager)
            mine, theirs = results(compiled.train(mode), x), results(eager.train(mode), x)
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("part", ["both", "the neuron"])
def test_recomputation_gives_the_same_gradients(reentrant, part):
    class Checkpointed(nn.Module):
        def __init__(self, *modules):
            super().__init__()
            self.modules_ = nn.Sequential(*modules)

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.modules_, x, use_reentrant=reentrant)

    _, fused = twins(small_net(), order=1)  # one without a state, which torch's recomputation does not rewind
    other = copy.deepcopy(fused)
    wrapped = (
        nn.Sequential(other[0], Checkpointed(other[1], other[2]), *other[3:])
        if part == "both"
        else nn.Sequential(other[0], other[1], Checkpointed(other[2]), *other[3:])
    )
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    mine, theirs = results(wrapped, x), results(fused, x)
    assert torch.equal(mine[0], theirs[0])
    for a, b in zip(other.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert other[1].num_batches_tracked == 2  # the recomputation counts too, as torch's batch norm does


@only_v2
@pytest.mark.parametrize("target", [MFPNode, nn.Sequential])
def test_spikingjellys_memory_optimizer_takes_the_pair(target):
    from spikingjelly.activation_based import memopt

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = small_net()

        def forward(self, x):
            return self.layers(x)

    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    _, fused = twins(Net())
    optimized = memopt.optimize_memory(copy.deepcopy(fused), (target,), lambda net: net(x), level=1)
    assert repr(optimized) != repr(fused)
    for net in (optimized, fused):
        functional.reset_net(net)
    mine, theirs = results(optimized, x), results(fused, x)
    torch.testing.assert_close(mine[0], theirs[0])
    for a, b in zip(optimized.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("first", ["quantized", "fused"])
def test_weights_may_be_quantized_before_or_after(first):
    net = small_net().double()
    if first == "quantized":
        both = convert(quantize_weights(net, bits=2), fuse=True)
        plain = convert(quantize_weights(copy.deepcopy(small_net().double()), bits=2))
    else:
        both = quantize_weights(convert(net, fuse=True), bits=2)
        plain = quantize_weights(convert(small_net().double()), bits=2)
    plain.load_state_dict(both.state_dict())
    assert isinstance(both[1], FusedNorm)
    assert_same(both, plain, torch.randn(4, 2, 2, 6, 6, dtype=torch.float64))


def test_a_report_counts_the_same_and_leaves_the_averages_alone():
    plain, fused = twins(small_net())
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    for net in (plain, fused):
        net(x)
        functional.reset_net(net)
    before = {key: value.clone() for key, value in fused.state_dict().items()}
    of_fused, of_plain = report(fused, x).as_dict(), report(plain, x).as_dict()
    for figures in (of_fused, of_plain):
        del figures["peak_activation_bytes"]  # here both are a few small tensors: a channel's numbers show
    assert of_fused == of_plain
    assert all(torch.equal(value, before[key]) for key, value in fused.state_dict().items())


def folded(net: nn.Sequential) -> nn.Module:
    return fuse_conv_bn_eval(net[0], net[1])


def set_norm(net: nn.Sequential, norm: nn.Module) -> nn.Sequential:
    net[1] = norm
    return net


def folded_by_hand(net: nn.Sequential) -> nn.Module:
    net[0] = folded(net)
    return set_norm(net, nn.Identity())


def folded_and_deleted(net: nn.Sequential) -> nn.Module:
    net[0] = folded(net)
    del net[1]
    return net


def folded_by_spikingjelly(net: nn.Sequential) -> nn.Module:
    from spikingjelly.activation_based.functional import conv_bn_fusion

    return conv_bn_fusion.fuse_conv_bn_eval_modules(net)


class Frozen(nn.Module):
    """What detection models put in place of a batch norm."""

    def __init__(self, norm):
        super().__init__()
        self.mean, self.scale = norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt()

    def forward(self, x):
        return (x - self.mean) * self.scale


def another_norm(net: nn.Sequential) -> nn.Module:
    other = layer.BatchNorm2d(1, eps=0.0, step_mode="m").eval()
    other.load_state_dict(net[1].state_dict())
    return set_norm(net, other)


def norm_alone_elsewhere(net: nn.Sequential) -> nn.Module:
    return nn.Sequential(net[0], nn.Sequential(net[1]), in_steps(neuron.IFNode(v_threshold=1.0)))


REPLACEMENTS = {
    "by spikingjelly": pytest.param(folded_by_spikingjelly, marks=only_v2),
    "folded by hand": folded_by_hand,
    "folded and deleted": folded_and_deleted,
    "frozen": lambda net: set_norm(net, Frozen(net[1])),
    "another": another_norm,
    "neuron in another model": lambda net: nn.Sequential(folded(net), net[2]),
    "norm in another model": norm_alone_elsewhere,
    "untouched": lambda net: net,
}


@pytest.mark.parametrize("runs_before", [0, 1, 2])
@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_whatever_takes_the_place_of_one_half_is_applied_once(replace, runs_before):
    """With weight 1, mean 1, variance 1: an input of 2.2 becomes 1.2, which fires; normalized twice, 0.2."""
    conv, norm = layer.Conv2d(1, 1, 1, bias=False), layer.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        norm.running_mean.fill_(1.0)
    net = in_steps(nn.Sequential(conv, norm, neuron.IFNode(v_threshold=1.0)))
    net = convert(net, fuse=True).eval()
    for _ in range(runs_before):
        net(torch.full((1, 1, 1, 1, 1), 0.9))
        functional.reset_net(net)
    net = replace(net)
    for x, spike in ((2.2, 1.0), (1.9, 0.0)):
        assert net(torch.full((1, 1, 1, 1, 1), x)).item() == spike
        functional.reset_net(net)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, dict(affine=False), dict(track_running_stats=False)], ids=str)
def test_a_fused_norm_whose_output_goes_elsewhere_gives_a_norms_values_and_gradients(settings, training):
    plain, fused = twins(small_net(layer.BatchNorm2d(3, **settings)))
    x = torch.randn(4, 2, 2, 6, 6, dtype=torch.float64)
    found = []
    for net in (plain, fused):
        net.train(training)
        leaf, seen = x.clone().requires_grad_(), []
        handle = net[1].register_forward_hook(lambda module, args, y, seen=seen: seen.append(y.sum().item()))
        y = net[:2](leaf)
        loss = y.tanh().sum() + (y * 2).relu().square().sum()
        loss.backward()
        handle.remove()
        gradients = [p.grad for p in net[:2].parameters()]
        found.append([loss, torch.tensor(seen), leaf.grad, *gradients, *net.buffers()])
    torch.testing.assert_close(*found)


# --- finding pairs ----------------------------------------------------------------------------------------


# how many pairs each model of the zoo has, and how many batch norms that something else follows
PAIRS = {
    "MNISTNet": (2, 0),
    "FashionMNISTNet": (2, 0),
    "NMNISTNet": (2, 0),
    "CIFAR10Net": (6, 0),
    "CIFAR10DVSNet": (4, 0),
    "DVSGestureNet": (5, 0),
    "SpikingVGG with batch norm": (2, 0),
    "spiking_resnet18": (9, 11),  # a sum lies between the second norm of a block and its neuron
    "sew_resnet18": (20, 0),  # three of them end the shortcut, a container of their own
    "sew_resnet AND": (17, 0),
    "MSResNet": (4, 9),
    "MaxResNet": (1, 11),
    "Spikformer": (0, 9),  # plain torch norms
    "QKFormer": (12, 10),
    "MaxFormer": (5, 15),
    "MaxFormer for CIFAR": (3, 15),
    "SpikeDrivenTransformer": (4, 7),
    "MASNN": (0, 5),
    "AttMSResNet": (4, 9),
}


@pytest.mark.parametrize("name", PAIRS)
def test_models_of_the_zoo_compute_the_same_when_fused(name):
    if name not in OLD_STYLE and not V2:
        pytest.skip("came with 2.0.0")
    build, shape = (OLD_STYLE | NEW_STYLE)[name]
    net = build()
    plain, fused = twins(in_steps(net) if name in OLD_STYLE else net)
    record = fused.mfp_conversion
    assert (len(record.fused), len(record.unfused)) == PAIRS[name]
    for one in record.fused:
        norm, node = fused.get_submodule(one.path), fused.get_submodule(one.into)
        assert isinstance(norm, FusedNorm) and isinstance(node, MFPNode)
    assert_same(fused, plain, torch.rand(shape, dtype=torch.float64))


class Block(nn.Module):
    """What its function does with a norm and a neuron."""

    def __init__(self, function):
        super().__init__()
        self.norm, self.spikes, self.function = layer.BatchNorm1d(3), lif(), function

    def forward(self, x, skip=None):
        return self.function(self, x, skip)


def in_training_only(self, x, skip):
    y = self.norm(x)
    return self.spikes(y) + (0 if self.training else y)


def only_if_given(self, x, skip):
    y = self.norm(x)
    return self.spikes(y if skip is None else y + skip)


def as_values_say(self, x, skip):
    return self.spikes(self.norm(x)) if x.sum() > 0 else x


def fails(self, x, skip):
    raise RuntimeError("no such thing")


STAY = {
    "both used": (lambda self, x, skip: self.spikes(y := self.norm(x)) + y, "its output goes to 2 places"),
    "returned": (lambda self, x, skip: (self.norm(x), self.spikes(x)), "the caller of the module"),
    "called twice": (lambda self, x, skip: self.spikes(self.norm(self.norm(x))), "called 2 times"),
    "neuron twice": (lambda self, x, skip: self.spikes(self.spikes(self.norm(x))), "more than once"),
    "something between": (lambda self, x, skip: self.spikes(self.norm(x) * 2), "its output goes to mul"),
    "a method between": (lambda self, x, skip: self.spikes(self.norm(x).relu()), "its output goes to relu"),
    "otherwise in evaluation": (in_training_only, "its output goes to 2 places"),
    "otherwise with an argument": (only_if_given, "its output goes to add"),
    "depends on values": (as_values_say, "the model (Block) could not be traced: TraceError"),
    "fails": (fails, "could not be traced: RuntimeError: no such thing"),
    "not used": (lambda self, x, skip: self.spikes(x), "no MFPNode follows it"),
}


@pytest.mark.parametrize(("function", "why"), STAY.values(), ids=STAY.keys())
def test_a_norm_whose_output_does_not_go_to_one_neuron_alone_stays_and_says_why(function, why):
    net = convert(in_steps(Block(function)), fuse=True)
    (left,) = net.mfp_conversion.unfused
    assert why in left.why and left.path == "norm" and not net.mfp_conversion.fused
    assert type(net.norm) is layer.BatchNorm1d and f"not fused:  {left.why}" in str(net.mfp_conversion)


def test_modules_in_lists_and_dicts_are_followed():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList(layer.BatchNorm1d(3) for _ in range(3))
            self.rest = nn.ModuleDict({"spikes": nn.ModuleList(lif() for _ in range(3))})

        def forward(self, x):
            for norm, spikes in zip(self.norms, self.rest["spikes"], strict=True):
                x = spikes(norm(x))
            return x

    plain, fused = twins(in_steps(Layers()))
    pairs = [(one.path, one.into) for one in fused.mfp_conversion.fused]
    assert pairs == [(f"norms.{i}", f"rest.spikes.{i}") for i in range(3)]
    assert_same(fused, plain, torch.randn(4, 2, 3, 5, dtype=torch.float64))


def test_tracing_leaves_nothing_behind():
    def remembers(self, x, skip):
        self.last = x
        self.calls += 1
        self.seen["x"] = x
        return self.spikes(self.norm(x))

    net = in_steps(Block(remembers))
    net.calls, net.seen = 0, {}
    net = convert(net, fuse=True)
    assert len(net.mfp_conversion.fused) == 1
    assert net.calls == 0 and net.seen == {} and not hasattr(net, "last")


def shared_norm() -> nn.Module:
    norm = layer.BatchNorm1d(3)
    return nn.Sequential(norm, lif(), layer.Linear(3, 3), norm, lif())


def hooked_norm() -> nn.Module:
    net = nn.Sequential(layer.BatchNorm1d(3), lif())
    net[0].register_forward_hook(lambda *_: None)
    return net


def hooked_container() -> nn.Module:
    net = nn.Sequential(nn.Sequential(layer.Linear(3, 3), layer.BatchNorm1d(3)), lif())
    net[0].register_forward_hook(lambda *_: None)
    return net


def hooked_neuron() -> nn.Module:
    net = nn.Sequential(layer.BatchNorm1d(3), MFPNode(step_mode="m", reset=None), lif())
    net[1].register_forward_hook(lambda *_: None)
    return net


class OwnNorm(layer.BatchNorm1d):
    def forward(self, x):
        return super().forward(x) * 2


PLACES = {
    "in two places": (shared_norm, "it stands in several places"),
    "with hooks": (hooked_norm, "it has hooks"),
    "in a container with hooks": (hooked_container, "no MFPNode follows it"),
    "before a neuron with hooks": (hooked_neuron, "behind it has hooks"),
    "torch's": (lambda: nn.Sequential(nn.BatchNorm1d(3), lif()), "only SpikingJelly's own"),
    "a subclass": (lambda: nn.Sequential(OwnNorm(3), lif()), "only SpikingJelly's own"),
    "torch's, synchronized": (lambda: nn.Sequential(nn.SyncBatchNorm(3), lif()), "only SpikingJelly's own"),
    "last": (lambda: nn.Sequential(lif(), layer.BatchNorm1d(3)), "the caller of the module"),
}


@pytest.mark.parametrize(("build", "why"), PLACES.values(), ids=PLACES.keys())
def test_a_norm_that_can_not_be_fused_where_it_stands_says_why(build, why):
    net = convert(in_steps(build()), fuse=True)
    assert net.mfp_conversion.unfused and all(why in left.why for left in net.mfp_conversion.unfused)
    assert not any(isinstance(module, FusedNorm) for module in net.modules())


def test_norms_of_other_kinds_are_not_touched():
    norms = [layer.NeuNorm(3, 4, 4, 0.5)]
    norms += [layer.ThresholdDependentBatchNorm2d(1.0, 0.3, 3)]
    for norm in norms:
        net = convert(in_steps(nn.Sequential(norm, lif())), fuse=True)
        assert type(net[0]) is type(norm) and not net.mfp_conversion.fused


def test_without_fuse_nothing_is_said_of_norms():
    record = convert(small_net()).mfp_conversion
    assert record.fused == record.unfused == ()
