"""torch.compile, torch.export and meta tensors see one graph without breaks."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, surrogate
from torch import nn

from mfp_neurons import MFPNode
from tests.spikingjelly.common import both_modes, parametrized

T = 4
KERNELS = {
    "exp": {},
    "learned a channel": {"learnable": True, "num_channels": 3},
    "pow2": {"kernel": "fir", "order": 3, "kernel_bits": "pow2"},
    "matrix": {"kernel": "matrix", "time_steps": T},
    "soft": {"reset": "subtract", "detach_reset": True},
    "hard, order 3": {"reset": "zero", "v_reset": -0.2, "order": 3},
}
every_kernel = parametrized(KERNELS)
SURROGATES = {"fused": surrogate.SoftSign(), "not fused": surrogate.PiecewiseExp()}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def some_input(step_mode: str) -> torch.Tensor:
    return torch.randn(T, 2, 3) if step_mode == "m" else torch.randn(2, 3)


def build(step_mode: str, **options) -> MFPNode:
    return MFPNode(
        **{
            "v_threshold": 0.3,
            "surrogate_function": surrogate.ATan(),
            "reset": None,
            **options,
            "step_mode": step_mode,
        }
    )


@both_modes
@every_kernel
def test_there_is_one_graph_and_no_break(options, step_mode):
    node = build(step_mode, **options)
    for _ in range(1 if step_mode == "m" else 2):  # from the reset value, then from a state
        explanation = torch._dynamo.explain(node)(some_input(step_mode))
        assert explanation.graph_break_count == 0 and explanation.graph_count == 1
        functional.reset_net(node)


@both_modes
@pytest.mark.parametrize("function", SURROGATES.values(), ids=SURROGATES.keys())
def test_a_whole_graph_compiles_forward_and_backward_with_every_kind_of_surrogate(function, step_mode):
    plain, node = (build(step_mode, surrogate_function=function, learnable=True) for _ in range(2))
    compiled = torch.compile(node, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x = some_input(step_mode)
        gradients = []
        for run, module in ((plain, plain), (compiled, node)):
            leaf = x.clone().requires_grad_()
            spikes = run(leaf)
            (spikes.sum() + module.v.sum()).backward()
            gradients.append([spikes, leaf.grad, module.kernel.decay_logit.grad])
            functional.reset_net(module)
        for ours, theirs in zip(*gradients, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # a state in the graph; LIFNode's too
@pytest.mark.parametrize("store_v_seq", [False, True])
@both_modes
@every_kernel
def test_a_state_is_carried_through_compiled_calls(options, step_mode, store_v_seq):
    plain, node = (build(step_mode, store_v_seq=store_v_seq, **options) for _ in range(2))
    compiled = torch.compile(node, fullgraph=True, backend="eager")
    pieces = [torch.randn(2, 2, 3) for _ in range(2)] if step_mode == "m" else list(torch.randn(T, 2, 3))
    for x in pieces:
        assert torch.equal(compiled(x), plain(x))
    assert torch.allclose(node.v, plain.v)
    assert not store_v_seq or torch.equal(node.v_seq, plain.v_seq)


def test_recompiling_follows_threshold_tau_surrogate_and_shape():
    node = build("m")
    compiled = torch.compile(node, fullgraph=True, backend="eager")

    def check(x):
        node.reset()
        eager = MFPNode(node.tau, v_threshold=node.v_threshold, step_mode="m", reset=None)
        assert torch.equal(compiled(x), eager(x))

    x = some_input("m")
    check(x)
    node.v_threshold = 0.1
    check(x)
    node.tau = 5.0
    check(x)
    check(torch.randn(T, 5, 3))
    check(torch.randn(T, 2, 3, dtype=torch.float64))


def test_a_network_trains_through_inductor():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Linear(3, 8),
        MFPNode(v_threshold=0.3, learnable=True, surrogate_function=surrogate.ATan(), reset=None),
        layer.Linear(8, 2),
        MFPNode(v_threshold=0.1, order=2, reset=None),
    )
    functional.set_step_mode(net, "m")
    compiled = torch.compile(net, fullgraph=True)
    for _ in range(3):
        x = torch.randn(T, 2, 3)
        expected = net(x)
        functional.reset_net(net)
        net.zero_grad()
        out = compiled(x)
        out.sum().backward()
        functional.reset_net(net)
        assert torch.equal(out, expected)
        assert all(p.grad is not None for p in net.parameters())


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # any MemoryModule's
@both_modes
@every_kernel
def test_export_gives_a_program_with_the_same_spikes(options, step_mode):
    node = build(step_mode, **options)
    x = some_input(step_mode)
    expected = node(x)
    functional.reset_net(node)
    program = torch.export.export(node, (x,))
    assert torch.equal(program.module()(x), expected)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "fir", "order": 8, "kernel_bits": "pow2"}])
def test_an_exported_network_takes_any_number_of_steps(options, strict):
    net = nn.Sequential(layer.Linear(3, 4), MFPNode(v_threshold=0.2, **options, reset=None))
    functional.set_step_mode(net, "m")
    steps = {0: torch.export.Dim("T", min=2, max=64)}
    program = torch.export.export(net, (torch.randn(5, 2, 3),), dynamic_shapes=(steps,), strict=strict)
    for T in (2, 7, 33):
        x = torch.randn(T, 2, 3)
        functional.reset_net(net)
        assert torch.equal(program.module()(x), net(x))
