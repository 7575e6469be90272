"""SpikingJelly's own tools, applied to networks of MFPNodes."""

import copy
import importlib
import json
import sys
import warnings

import pytest
import torch
from spikingjelly.activation_based import functional, layer, learning, monitor, neuron, surrogate
from torch import nn

from mfp_neurons import MFPNode, convert
from mfp_neurons._checks import MissingDependency, require
from mfp_neurons.spikingjelly import FLOP_RULES, MEMORY_RULES, STATE_RULES
from tests.spikingjelly.common import V2, both_modes, only_v2, parametrized

if V2:
    from spikingjelly.activation_based import memopt, op_counter

T = 4
KERNELS = {
    "exp": {},
    "learned": {"learnable": True},
    "fir": {"kernel": "fir", "order": 3},
    "order 1": {"order": 1},
}
every_kernel = parametrized(KERNELS)


def network(step_mode="m", **options) -> nn.Sequential:
    torch.manual_seed(0)
    atan = surrogate.ATan()
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1),
        layer.BatchNorm2d(4),
        MFPNode(surrogate_function=atan, v_threshold=0.3, **options, reset=None),
        layer.Flatten(),
        layer.Linear(4 * 5 * 5, 3),
        MFPNode(surrogate_function=atan, v_threshold=0.1, **options, reset=None),
    )
    functional.set_step_mode(net, step_mode)
    return net


def images(n=2) -> torch.Tensor:
    return torch.randn(T, n, 1, 5, 5)


@every_kernel
def test_a_training_loop_with_reset_net_lowers_the_loss(options):
    net = network(**options)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    x, target = images(8), torch.randint(0, 3, (8,))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(4 * net(x).mean(0), target)
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
        assert all(node.v == 0.0 for node in net if isinstance(node, MFPNode))
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@both_modes
def test_set_threshold_margin_trains_and_evaluates(step_mode):
    net = network(step_mode)
    x = images() if step_mode == "m" else images()[0]
    labels = torch.eye(3)[[0, 2]]
    functional.set_threshold_margin(net[5], labels, eval_threshold=1.0, threshold0=0.9, threshold1=1.1)
    out = net(x)
    out.sum().backward()
    u = net[5].v
    assert torch.equal(
        out[-1] if step_mode == "m" else out, (u >= torch.where(labels == 1, 1.1, 0.9)).float()
    )
    net.eval()
    functional.set_threshold_margin(net[5], labels, eval_threshold=0.5)
    assert net[5].v_threshold == 0.5
    net(x)


@both_modes
def test_monitors_see_spikes_potentials_and_gradients(step_mode):
    net = network(step_mode, store_v_seq=True)
    x = images()
    with_instance = {"net": net, "instance": MFPNode}
    spikes = monitor.OutputMonitor(**with_instance)
    inputs = monitor.InputMonitor(**with_instance)
    potentials = monitor.AttributeMonitor(
        "v_seq" if step_mode == "m" else "v", pre_forward=False, **with_instance
    )
    gradients = monitor.GradOutputMonitor(**with_instance)
    outputs = [net(x)] if step_mode == "m" else [net(step) for step in x]
    sum(out.sum() for out in outputs).backward()
    calls = 1 if step_mode == "m" else T
    for records in (spikes.records, inputs.records, potentials.records, gradients.records):
        assert len(records) == 2 * calls
    assert torch.equal(spikes.records[-1], outputs[-1])
    assert potentials["5"][-1].shape == outputs[-1].shape
    everything = monitor.OutputMonitor(net, neuron.BaseNode)  # what users write
    functional.reset_net(net)
    net(x if step_mode == "m" else x[0])
    assert len(everything.records) == 2
    for each in (spikes, inputs, potentials, gradients, everything):
        each.remove_hooks()


@both_modes
@every_kernel
def test_stdp_learns_from_it(step_mode, options):
    synapse, node = layer.Linear(4, 3, bias=False), MFPNode(v_threshold=0.2, **options, reset=None)
    net = nn.Sequential(synapse, node)
    functional.set_step_mode(net, step_mode)
    learner = learning.STDPLearner(step_mode=step_mode, synapse=synapse, sn=node, tau_pre=2.0, tau_post=2.0)
    with torch.no_grad():
        synapse.weight.fill_(0.5)
        x_seq = (torch.rand(T, 2, 4) > 0.3).float()
        for x in [x_seq] if step_mode == "m" else x_seq:
            net(x)
            learner.step(on_grad=True)
    assert synapse.weight.grad.any()


@only_v2
@every_kernel
def test_online_learning_rules_train_it_step_by_step(options):
    from spikingjelly.activation_based.learning import online_learning

    net = network("s", **options)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    before = copy.deepcopy(net.state_dict())
    x, y = images(), torch.randn(T, 2, 3)
    w_ra = online_learning.fptt_online_training_init_w_ra(optimizer)
    online_learning.fptt_online_training(net, optimizer, x, y, nn.functional.mse_loss, 0.1, w_ra)
    functional.reset_net(net)
    online_learning.ottt_online_training(
        net, optimizer, x.transpose(0, 1), y.transpose(0, 1), nn.functional.mse_loss, online=True
    )
    functional.reset_net(net)
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert not torch.equal(before["4.weight"], net.state_dict()["4.weight"])


@every_kernel
def test_containers_run_it_step_by_step(options):
    x = torch.randn(T, 2, 3)
    node = MFPNode(v_threshold=0.3, step_mode="m", **options, reset=None)
    expected = node(x)
    inside = layer.MultiStepContainer(MFPNode(v_threshold=0.3, **options, reset=None))
    assert torch.equal(inside(x), expected)
    recurrent = layer.LinearRecurrentContainer(
        MFPNode(v_threshold=0.3, **options, reset=None), 3, 3, step_mode="m"
    )
    recurrent(x).sum().backward()
    added = layer.ElementWiseRecurrentContainer(
        MFPNode(v_threshold=0.3, **options, reset=None), lambda a, b: a + b, step_mode="m"
    )
    assert added(x).shape == x.shape
    for container in (inside, recurrent, added):
        functional.reset_net(container)
        assert all(m.v == 0.0 for m in container.modules() if isinstance(m, MFPNode))


@only_v2
@every_kernel
@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_checkpointing_in_chunks_of_time_changes_nothing(options, chunks):
    x_seq = torch.randn(7, 2, 3)
    plain = MFPNode(
        v_threshold=0.3, step_mode="m", surrogate_function=surrogate.ATan(), **options, reset=None
    )
    wrapped = memopt.checkpoint_module(copy.deepcopy(plain), chunks=chunks)
    results = []
    for node in (plain, wrapped):
        node.train()
        x = x_seq.clone().requires_grad_()
        spikes = torch.cat([node(x[:4]), node(x[4:])])  # the second starts from a state
        (spikes * torch.arange(42.0).reshape(7, 2, 3)).sum().backward()
        results.append([spikes, x.grad, *(p.grad for p in node.parameters())])
        functional.reset_net(node)
        functional.reset_net(node)
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(copy.deepcopy(wrapped)(x_seq), plain(x_seq))


@only_v2
def test_optimize_memory_keeps_the_networks_results():
    net, x = network(), images()
    expected = net(x)
    functional.reset_net(net)
    optimized = memopt.optimize_memory(
        copy.deepcopy(net), (MFPNode, layer.Conv2d), lambda model: model(x), level=1
    )
    out = optimized(x)
    out.sum().backward()
    assert torch.equal(out, expected)


@only_v2
class TestCounters:
    """SpikingJelly 2.0.0's operation counters."""

    @staticmethod
    def counted(kinds, net, *inputs, **options):
        """Counters after a run of a network on its inputs, one after the other."""
        with op_counter.DispatchCounterMode(kinds, **options), torch.no_grad():
            for x in inputs:
                net(x)
        return kinds

    def state_metrics(self, net, *inputs, rules=STATE_RULES):
        counter = op_counter.NeuronStateCounter(extra_state_rules=rules)
        self.counted([counter], net, *inputs)
        return counter.get_metric_counts()["Global"]

    @pytest.mark.parametrize("name", ["MACCounter", "SynOpCounter"])
    @pytest.mark.parametrize("options", [*KERNELS.values(), {"kernel": "matrix", "time_steps": T}])
    def test_the_neuron_adds_no_synaptic_work(self, name, options):
        kind = getattr(op_counter, name)
        totals = []
        for counter in (kind(), kind(extra_ignore_modules=[neuron.BaseNode])):
            self.counted([counter], network(**options), images())
            totals.append(counter.get_total())
        assert totals[0] == totals[1]
        (counter,) = self.counted([kind()], network(**options)[2], torch.randn(T, 2, 4, 5, 5))
        assert counter.get_total() == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    @pytest.mark.parametrize("rules", [None, STATE_RULES])
    def test_state_reads_and_writes_are_seen_in_bytes(self, rules, dtype, device):
        x = torch.ones(T, 2, 3, dtype=dtype, device=device)
        metrics = self.state_metrics(MFPNode(step_mode="m", reset=None), x, rules=rules)
        size = 2 * 3 * dtype.itemsize
        assert metrics["state_reads"] >= size
        if rules is not None:  # the operator touches the state once for all T steps
            assert (metrics["state_reads"], metrics["state_writes"]) == (size, size)
            assert metrics["neuron_logical_steps"] == T * 2 * 3

    @pytest.mark.parametrize("size", [16, 200_000])  # one step of few neurons runs in stock operators
    @pytest.mark.parametrize(
        ("options", "states"),
        [
            ({}, 1),
            ({"order": 3}, 2),
            ({"reset": "subtract"}, 1),
            ({"reset": "zero", "v_reset": -0.5}, 1),
            ({"reset": "zero", "order": 3}, 4),  # inputs and own spikes
            ({"reset": "feedback", "order": 3, "reset_order": 1}, 3),
        ],
    )
    def test_each_step_reads_and_writes_its_state_once(self, size, options, states):
        node, x = MFPNode(**{"reset": None, **options}), torch.ones(size)
        for _ in range(2):  # from rest, then from a state
            metrics = self.state_metrics(node, x)
            assert metrics["state_reads"] == metrics["state_writes"] == 4 * states * size
            assert metrics["neuron_logical_steps"] == size

    @both_modes
    @pytest.mark.parametrize(
        "options",
        [
            *KERNELS.values(),
            {"order": 3, "kernel_bits": "pow2"},
            {"order": 3, "kernel_bits": 4},
            {"kernel": "matrix", "time_steps": 8},
            {"surrogate_function": surrogate.PiecewiseExp()},
            {"reset": "subtract"},
            {"reset": "zero", "v_reset": -0.5},
            {"reset": "zero", "detach_reset": True},
            {"reset": "subtract", "order": 3, "learnable": True},
            {"reset": "zero", "order": 3},
            {"reset": "feedback", "order": 3, "kernel_bits": "pow2"},
            {"reset": "subtract", "surrogate_function": surrogate.PiecewiseExp()},
        ],
        ids=str,
    )
    def test_strict_counters_have_a_rule_for_all_that_a_neuron_does(self, options, step_mode):
        x = torch.randn(T, 2, 3)
        counters = [
            op_counter.FlopCounter(extra_rules=FLOP_RULES),
            op_counter.MemoryAccessCounter(extra_rules=MEMORY_RULES),
        ]
        inputs = (x, x) if step_mode == "m" else x  # from rest and from a state
        self.counted(
            counters, MFPNode(**{"reset": None, "step_mode": step_mode, **options}), *inputs, strict=True
        )
        assert all(counter.get_total() > 0 for counter in counters)

    @pytest.mark.parametrize(
        ("options", "flops", "parameters", "states"),
        [
            # a step: 2 products, 1 sum, 1 comparison. parameters: decay, gain, threshold
            ({}, 4 * 4, 2 + 1, 1),
            # 3 products, 2 sums and 1 comparison a step: SpikingJelly's counters ask for a state, zeros
            ({"kernel": "fir", "order": 3}, 4 * 6, 3 + 1, 2),
            # a product and a sum more for the own spike, and one parameter
            ({"kernel": "fir", "order": 3, "reset": "feedback", "reset_order": 1}, 4 * 8, 3 + 1 + 1, 3),
        ],
    )
    def test_operations_and_bytes_of_the_operator_are_those_counted_by_hand(
        self, options, flops, parameters, states
    ):
        (operator,) = [func for func in FLOP_RULES if str(func) == "mfp_neurons.fire.default"]
        counters = [
            op_counter.FlopCounter(extra_rules=FLOP_RULES),
            op_counter.MemoryAccessCounter(extra_rules=MEMORY_RULES),
        ]
        for counter in counters:
            counter.rules = {operator: counter.rules[operator]}
        self.counted(counters, MFPNode(**{"reset": None, "step_mode": "m", **options}), torch.randn(T, 2, 3))
        touched = T * 6 + states * 6 + parameters + T * 6 + 6  # in: input, state; out: spikes, last potential
        assert [counter.get_total() for counter in counters] == [flops * 6, 4 * touched]

    def test_state_traffic_is_the_same_with_a_mask_and_with_a_fused_norm(self):
        x = torch.ones(T, 2, 3, 4, requires_grad=True)
        expected = self.state_metrics(MFPNode(step_mode="m", reset=None), x)
        masked = MFPNode(step_mode="m", surrogate_function=surrogate.Rect(), reset=None)
        pair = nn.Sequential(layer.BatchNorm1d(3, step_mode="m"), neuron.LIFNode(step_mode="m"))
        assert expected == self.state_metrics(masked, x)
        assert expected == self.state_metrics(convert(pair, fuse=True), x)

    def test_memory_access_is_charged_to_the_neurons_states_and_computing_to_synapses_alone(self):
        counter = op_counter.NeuromorphicMemoryAccessCounter()
        node = nn.Sequential(MFPNode(step_mode="m", reset=None))
        with op_counter.ModuleCounterMode([counter], model=node), torch.no_grad():
            node(torch.ones(T, 2, 3))
        assert counter.get_counts()["Global"]["neuron_state_read_bytes"] == T * 2 * 3 * 4
        net = nn.Sequential(nn.Linear(3, 4), MFPNode(step_mode="m", reset=None))
        report = op_counter.estimate_simple_energy(net, (torch.randn(T, 2, 3),))
        assert report.counts["mac"] == T * 2 * 3 * 4 and report.counts["ac"] == 0
        assert report.counts["neuron_state_read_bytes"] == T * 2 * 4 * 4 and not report.warnings


@only_v2
def test_spikingjellys_neuron_config_finds_it_by_its_path():
    from spikingjelly.activation_based.distributed.vision import NeuronConfig, config

    written = NeuronConfig(
        "mfp_neurons.spikingjelly.MFPNode",
        json.loads(json.dumps({"tau": 3.0, "order": 4, "kernel": "fir", "kernel_bits": "pow2"})),
        surrogate="spikingjelly.activation_based.surrogate.ATan",
    )
    found, kwargs = config._resolve_neuron_config(written)
    assert found is MFPNode
    assert f"{MFPNode.__module__}.{MFPNode.__qualname__}" == written.class_path  # what SpikingJelly records
    node = found(**kwargs)
    assert node.kernel.order == 4 and isinstance(node.surrogate_function, surrogate.ATan)


def test_a_spikingjelly_whose_registry_cannot_be_imported_is_used_without_it(monkeypatch):
    """Its repository's version misses a module that the registry imports."""
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based.distributed.vision", None)
    importlib.reload(sys.modules["mfp_neurons.spikingjelly"])


def test_a_package_that_lacks_a_part_of_its_own_is_not_said_to_be_missing(monkeypatch, tmp_path):
    (tmp_path / "half_a_package").mkdir()
    (tmp_path / "half_a_package" / "__init__.py").write_text("from . import other_half")
    (tmp_path / "half_a_package" / "whole.py").write_text("import half_a_package.other_half")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="other_half"):
        require("half_a_package.whole", "spikingjelly")
    with pytest.raises(MissingDependency, match="no_package is not installed"):
        require("no_package", "spikingjelly")


@every_kernel
def test_ema_copies_and_averages_it(options):
    net = network(**options)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    net(images()).sum().backward()
    functional.reset_net(net)
    averaged.update_parameters(net)
    assert averaged(images()).shape == (T, 2, 3)


def test_data_parallel_style_replicas_keep_their_own_states():
    node = MFPNode(step_mode="m", learnable=True, reset=None)
    replica = node._replicate_for_data_parallel()  # what torch's DataParallel calls
    replica.v = torch.ones(2)
    assert node.v == 0.0


def test_distributed_data_parallel_trains_it(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = nn.parallel.DistributedDataParallel(network(learnable=True), broadcast_buffers=True)
        for _ in range(2):
            net(images()).sum().backward()
            functional.reset_net(net)
        assert all(p.grad is not None for p in net.parameters())
    finally:
        torch.distributed.destroy_process_group()


@every_kernel
def test_a_network_trains_under_autocast(options):
    net = network(**options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(images())
        loss = out.float().mean()
    loss.backward()
    assert out.dtype == torch.bfloat16  # what Linear hands over
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
