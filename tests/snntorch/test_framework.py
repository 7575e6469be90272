"""The rest of snnTorch around our neurons: reset, training helpers, losses, plots; and torch's own tools."""

import copy
import gc
import pickle
import subprocess
import sys
import textwrap
import weakref

import pytest
import snntorch as snn
import torch
from snntorch import functional as SF
from snntorch import surrogate, utils
from torch import Tensor, nn

from mfp_neurons import surrogate as fused
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel, detach, release, reset

FINITE = {"order": 4}


def network(**options: object) -> nn.Sequential:
    """The usual tutorial network, hidden states and all."""
    return nn.Sequential(
        nn.Linear(6, 8),
        MFPLeaky(0.8, init_hidden=True, **options, reset_mechanism="none"),
        nn.Linear(8, 3),
        MFPLeaky(0.8, init_hidden=True, output=True, **options, reset_mechanism="none"),
    )


class Nested(nn.Module):
    """Neurons two levels down, where snntorch.utils.reset does not look."""

    def __init__(self, neuron: type = MFPLeaky, **options: object) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Linear(6, 8), neuron(0.8, init_hidden=True, reset_mechanism="none", **options))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


# --- reset, detach, release ---


@pytest.mark.parametrize("options", [{}, FINITE])
def test_utils_reset_resets_and_detaches_direct_children(options):
    net = network(**options)
    x = torch.randn(2, 6)
    first = [net(x)[1] for _ in range(3)]
    utils.reset(net)
    assert not any(
        neuron.mem.any() or neuron.mem.requires_grad for neuron in net if isinstance(neuron, MFPLeaky)
    )
    for expected in first:
        assert torch.equal(net(x)[1], expected)
    torch.stack([net(x)[1] for _ in range(2)]).sum().backward()


@pytest.mark.parametrize("options", [{}, FINITE])
def test_our_reset_reaches_nested_bare_and_copied_neurons_and_no_others(options):
    net, other = Nested(**options), Nested(**options)
    x = torch.ones(2, 6)
    for module in (net, other):
        module(x)
    kept = other.body[0][1].mem
    utils.reset(net)
    assert net.body[0][1].mem.any(), "snnTorch reaches nested neurons now: this package's reset may go"
    reset(net)
    assert not net.body[0][1].mem.any() and other.body[0][1].mem is kept
    twin = copy.deepcopy(net)
    twin(x)
    reset(twin)
    assert not twin.body[0][1].mem.any()
    bare = MFPLeaky(0.5, **options, reset_mechanism="none")
    bare(x)
    reset(bare)
    assert not bare.mem.any()


def test_our_reset_and_detach_serve_snntorchs_own_neurons_too():
    net = nn.Sequential(nn.ModuleDict({"a": snn.Synaptic(0.5, 0.5), "b": snn.RLeaky(0.5, all_to_all=False)}))
    x = torch.ones(2, 3, requires_grad=True)
    for neuron in net[0].values():
        neuron(x)
        assert neuron.mem.requires_grad
    before = net[0]["a"].syn.clone()
    detach(net)
    for neuron in net[0].values():
        assert not neuron.mem.requires_grad and neuron.mem.any()
    assert torch.equal(net[0]["a"].syn, before)
    reset(net)
    assert not net[0]["a"].syn.any() and not net[0]["b"].mem.any()


@pytest.mark.parametrize("options", [{}, FINITE, {"kernel": "matrix", "time_steps": 6}])
def test_our_detach_cuts_the_graph_and_keeps_the_values(options):
    net = Nested(**options)
    x_seq = torch.randn(6, 2, 6)
    expected = torch.stack([net(x) for x in x_seq])
    reset(net)
    spikes = []
    for x in x_seq:
        spikes.append(net(x))
        spikes[-1].sum().backward()  # a second time through the graph raises
        detach(net)
    assert torch.equal(torch.stack(spikes), expected)


def test_release_lets_our_neurons_go_and_leaves_the_list_and_the_others():
    theirs, instances = snn.Leaky(0.5), snn.SpikingNeuron.instances
    net, kept = (
        nn.Sequential(MFPLeaky(0.5, reset_mechanism="none"), MFPLeakyParallel(0.5, reset_mechanism="none")),
        MFPLeaky(0.5, reset_mechanism="none"),
    )
    gone = weakref.ref(net[0])
    assert release(net) == 2
    del net
    gc.collect()
    assert gone() is None
    assert instances is snn.SpikingNeuron.instances
    assert [any(one is neuron for one in instances) for neuron in (theirs, kept)] == [True, True]
    release()
    assert not any(isinstance(one, (MFPLeaky, MFPLeakyParallel)) for one in instances)


def test_truncated_backpropagation_by_hand_with_detach_hidden():
    net = network()
    for x in torch.randn(5, 2, 6):
        spk, mem = net(x)
        (spk + mem).sum().backward()
        snn.Leaky.detach_hidden()


# --- training helpers ---


@pytest.mark.parametrize("options", [{}, FINITE])
@pytest.mark.parametrize("truncated", [False, True])
def test_snntorchs_training_helpers_train_the_network(options, truncated):
    from snntorch import backprop

    net = network(**options)
    before = [p.clone() for p in net.parameters()]
    loader = [(torch.rand(4, 6) * 4, torch.randint(0, 3, (4,))) for _ in range(2)]
    arguments = {"optimizer": torch.optim.SGD(net.parameters(), 0.1), "criterion": SF.ce_rate_loss()}
    if truncated:
        loss = backprop.TBPTT(net, loader, num_steps=4, time_var=False, K=2, **arguments)
    else:
        loss = backprop.BPTT(net, loader, num_steps=4, time_var=False, **arguments)
    assert loss > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


LOSSES = [
    ("spk", SF.ce_rate_loss()),
    ("spk", SF.ce_count_loss()),
    ("mem", SF.ce_max_membrane_loss()),
    ("spk", SF.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2)),
    ("mem", SF.mse_membrane_loss()),
    ("spk", SF.ce_temporal_loss()),
    ("spk", SF.mse_temporal_loss()),
    ("spk", SF.mse_count_loss(population_code=True, num_classes=2, correct_rate=0.8, incorrect_rate=0.2)),
]


@pytest.mark.parametrize(("wants", "loss"), LOSSES, ids=[loss.__name__ for _, loss in LOSSES])
@pytest.mark.parametrize("stepwise", [False, True])
def test_every_loss_takes_our_outputs_and_gives_leakys_loss_and_gradient(wants, loss, stepwise):
    x_seq, targets = torch.rand(8, 5, 4), torch.randint(0, 2, (5,))
    results = []
    for ours in (True, False):
        x = x_seq.clone().requires_grad_()
        if ours and not stepwise:
            spk, mem = MFPLeakyParallel(0.9, reset_mechanism="none")(x)
        else:
            neuron = MFPLeaky(0.9, reset_mechanism="none") if ours else snn.Leaky(0.9, reset_mechanism="none")
            spk, mem = map(torch.stack, zip(*[neuron(step) for step in x], strict=True))
        value = loss(spk if wants == "spk" else mem, targets)
        value.sum().backward()
        results.append((value, x.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_our_outputs_can_be_plotted():
    plt = pytest.importorskip("matplotlib.pyplot")
    splt = pytest.importorskip("snntorch.spikeplot")
    plt.switch_backend("Agg")
    spk, mem = MFPLeakyParallel(0.9, reset_mechanism="none")(torch.rand(20, 1, 3))
    _, ax = plt.subplots()
    points = splt.raster(spk[:, 0], ax, s=2, c="black")
    assert len(points.get_offsets()) == int(spk.sum())
    splt.traces(mem[:, 0].detach(), spk=spk[:, 0].detach(), dim=(1, 3))
    plt.close("all")


def test_a_probe_sees_what_forward_returns():
    from snntorch.functional import probe

    net = network()
    monitor = probe.OutputMonitor(net, instance=MFPLeaky)
    net(torch.randn(2, 6))
    assert [type(record) for record in monitor.records] == [Tensor, tuple]


# --- torch's tools ---


@pytest.mark.parametrize(
    "options", [{}, FINITE, {"kernel": "fir", "order": 3}, {"order": 3, "kernel_bits": "pow2"}]
)
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
def test_compile_finds_no_graph_break(make, options):
    torch._dynamo.reset()
    x = torch.randn(5, 2, 3)
    neuron = make(0.5, surrogate_disable=True, **options)
    assert torch._dynamo.explain(neuron)(x).graph_break_count == 0
    torch._dynamo.reset()
    neuron = make(0.5, **options)
    compiled = torch.compile(neuron, fullgraph=True, backend="eager")
    expected = neuron(x)
    neuron.reset_mem()
    torch.testing.assert_close(compiled(x), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # dynamo looks at mem
@pytest.mark.parametrize("options", [{}, FINITE])
def test_a_whole_training_loop_compiles_into_one_graph(options):
    torch._dynamo.reset()
    net = network(**options)
    x_seq = torch.randn(4, 2, 6)

    def run(x_seq: Tensor) -> Tensor:
        for neuron in (net[1], net[3]):
            neuron.reset_mem()
        return torch.stack([net(x)[1] for x in x_seq])

    expected = run(x_seq)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x_seq), expected)
    (expected_grad,) = torch.autograd.grad(expected.sum(), net[0].weight)
    (grad,) = torch.autograd.grad(compiled(x_seq).sum(), net[0].weight)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("spike_grad", [None, fused.ATan(), surrogate.fast_sigmoid(slope=10)])
@pytest.mark.parametrize("make", [MFPLeaky, MFPLeakyParallel])
def test_neurons_are_pickled_with_their_surrogates(make, spike_grad):
    neuron, x = make(0.5, spike_grad=spike_grad), torch.randn(4, 2, 6, requires_grad=True)
    results = [one(x)[0] for one in (neuron, pickle.loads(pickle.dumps(neuron)))]
    assert torch.equal(*results)
    assert torch.equal(*(torch.autograd.grad(spk.sum(), x)[0] for spk in results))


def test_optimizer_steps_keep_a_learned_beta_usable_outside_its_range():
    for make in (MFPLeaky, MFPLeakyParallel):
        neuron = make(0.9, learn_beta=True, reset_mechanism="none")
        with torch.no_grad():
            neuron.beta.fill_(1.7)  # clamped to 1 when used, as in snn.Leaky
        x = torch.ones(3, 2)
        mem = neuron(x)[1][-1] if make is MFPLeakyParallel else [neuron(step)[1] for step in x][-1]
        assert torch.equal(mem.detach(), torch.full((2,), 3.0))


DDP_SCRIPT = """
    import sys, torch, torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel as DDP
    from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel
    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
    torch.manual_seed(rank)
    x_seq = torch.rand(6, 3 + rank, 4)  # an uneven last batch

    def same_start(neuron):
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(4, 5), neuron)

    alone = same_start(MFPLeakyParallel(0.9, learn_beta=True))
    spk, mem = alone(x_seq)
    mem.square().mean().backward()
    for _ in range(2):  # twice: an unused parameter would stop the second step
        both = DDP(same_start(MFPLeakyParallel(0.9, learn_beta=True)))
        for _ in range(2):
            both.zero_grad()
            got_spk, got_mem = both(x_seq)
            assert torch.equal(got_spk, spk) and torch.equal(got_mem, mem)
            got_mem.square().mean().backward()
    grads = [p.grad.clone() for p in alone.parameters()]
    for grad in grads:
        dist.all_reduce(grad)
    for grad, p in zip(grads, both.parameters()):
        torch.testing.assert_close(p.grad, grad / 2)

    for options in ({}, {"order": 3}):
        alone = same_start(MFPLeaky(0.9, **options))
        both = DDP(same_start(MFPLeaky(0.9, **options)), broadcast_buffers=False)
        for x in x_seq:
            assert torch.equal(both(x)[1], alone(x)[1])
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_data_parallel_ranks_keep_their_own_state(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(DDP_SCRIPT))
    command = [sys.executable, "-W", "ignore", str(script)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=120)
        assert rank.returncode == 0, error
