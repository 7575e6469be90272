"""save_spikes_as_bits: gradients stay the same bit for bit, and spikes take one bit each until backward."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional as jelly
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.speed.memory import held_bytes
from mfp_neurons import MFP, MFPNode, QuantizedMembraneLIF, convert, quantize_weights, save_spikes_as_bits
from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel

CPU = torch.device("cpu")
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


class StepByStep(nn.Module):
    """One neuron that takes steps, over a whole sequence."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x_seq: Tensor) -> Tensor:
        return torch.stack([self.neuron(x).to(x.dtype) for x in x_seq])  # snnTorch's are float32


class Spikes(nn.Module):
    """The first of what a neuron of snnTorch returns."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x_seq: Tensor) -> Tensor:
        return self.neuron(x_seq)[0].to(x_seq.dtype)


# with a threshold that a linear layer's output of uniform numbers crosses about half of the time
NEURONS: dict[str, Callable[[], nn.Module]] = {
    "MFP": lambda: MFP(v_threshold=0.1),
    "MFP, taps": lambda: MFP(kernel="fir", order=3, v_threshold=0.1),
    "MFP, soft reset": lambda: MFP(order=3, reset="subtract", v_threshold=0.1),
    "MFP, hard reset": lambda: MFP(reset="zero", v_threshold=0.1),
    "MFP, feedback": lambda: MFP(order=3, reset="feedback", v_threshold=0.1),
    "MFP, surrogate of the user's": lambda: MFP(v_threshold=0.1, surrogate=lambda x: (x * 3).sigmoid()),
    "QuantizedMembraneLIF": lambda: QuantizedMembraneLIF(v_threshold=0.1),
    "MFPNode": lambda: MFPNode(v_threshold=0.1, step_mode="m"),
    "MFPNode, memory-free": lambda: MFPNode(v_threshold=0.1, reset=None, order=2, step_mode="m"),
    "MFPNode, steps": lambda: StepByStep(MFPNode(v_threshold=0.1, order=2)),
    "MFPLeaky": lambda: StepByStep(MFPLeaky(0.5, threshold=0.1, init_hidden=True)),
    "MFPLeaky, graded": lambda: StepByStep(
        MFPLeaky(0.5, threshold=0.1, init_hidden=True, graded_spikes_factor=0.3)
    ),
    "MFPLeakyParallel": lambda: Spikes(MFPLeakyParallel(0.5, threshold=0.1)),
    "MFPLeakyParallel, graded": lambda: Spikes(
        MFPLeakyParallel(0.5, threshold=0.1, graded_spikes_factor=0.3)
    ),
}


def permuted(s: Tensor) -> Tensor:
    return s.transpose(0, 1).contiguous().transpose(0, 1)


def written_into(s: Tensor) -> Tensor:
    with torch.no_grad():
        s.mul_(0.5)
    return s


def written_into_a_view(s: Tensor) -> Tensor:
    with torch.no_grad():
        s.detach()[1:].flatten()[::2].fill_(0.25)
    return s


class HalvedPool(nn.MaxPool1d):
    """A subclass whose output is no spikes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def hooked_pool(s: Tensor) -> Tensor:
    pool = nn.MaxPool1d(2)
    pool.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0.5,))
    pool.register_forward_hook(lambda _, __, output: output * 3)
    return pool(s)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda s: s,
    "view": lambda s: s.unflatten(1, (2, -1)).flatten(0, 1),
    "permuted": permuted,
    "flipped view": lambda s: s.transpose(0, 1),
    "part": lambda s: s[1:, 1:, 1:],
    "every other": lambda s: s[:, :, ::2],
    "no neuron": lambda s: torch.cat([s[:, :, :0], s * 2], 2),
    "expanded": lambda s: s[:, :, :1].expand(-1, -1, 9),
    "pooled": nn.MaxPool1d(2),
    "pooled with padding": nn.MaxPool1d(3, 2, 1),
    "pooled with its places": lambda s: nn.MaxPool1d(2, return_indices=True)(s)[0],
    "subclass of a pool": HalvedPool(2),
    "pool with hooks": hooked_pool,
    "halved": lambda s: s * 0.5,
    "halved in place": lambda s: s.mul_(0.5),
    "written into": written_into,
    "written into a view": written_into_a_view,
    "read as integers": lambda s: s + (s.detach().view(torch.int16) > 0).sum(),
    "added to itself": lambda s: s + s,
    "chunks": lambda s: torch.cat([part * 2 for part in s.chunk(2)]),
    "dropout": nn.Dropout(0.5),
}


class Net(nn.Module):
    """Linear, neuron, a change, two linear layers that read the result, and a second neuron."""

    def __init__(self, neuron: nn.Module, change: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.first, self.neuron, self.change = nn.Linear(5, width), neuron, change
        self.second, self.third = nn.LazyLinear(4), nn.LazyLinear(4)
        self.last = MFP(v_threshold=0.2)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.change(self.neuron(self.first(x)))
        return self.out(self.last(self.second(spikes) * self.third(spikes)))


def gradients(net: nn.Module, x: Tensor, saving: bool, run: Callable[..., Any] | None = None) -> list[Tensor]:
    """Outputs and gradients of the parameters and of the input."""
    torch.manual_seed(1)  # of dropout
    for parameter in net.parameters():
        parameter.grad = None
    leaf = x.detach().clone().requires_grad_()
    with save_spikes_as_bits() if saving else contextlib.nullcontext():
        y = (run or net)(leaf)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    jelly.reset_net(net)
    return [y, leaf.grad, *(p.grad for p in net.parameters())]


def assert_equal(ours: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


@pytest.fixture(autouse=True)
def _no_snntorch_neurons() -> Iterator[None]:
    yield
    snntorch.SpikingNeuron.instances.clear()


@pytest.mark.parametrize("make", NEURONS.values(), ids=NEURONS)
@settings(max_examples=12)
@given(
    change=st.sampled_from(list(CHANGES)), dtype=st.sampled_from(FLOATS),
    steps=st.integers(2, 5), batch=st.integers(2, 4), width=st.sampled_from([2, 3, 8, 9, 33]),
)  # fmt: skip
def test_gradients_are_the_same_bit_for_bit(
    make: Callable[[], nn.Module], change: str, dtype: torch.dtype, steps: int, batch: int, width: int
) -> None:
    torch.manual_seed(0)
    x = torch.rand(steps, 2 * batch, 5, dtype=dtype)
    net = Net(make(), CHANGES[change], 2 * width).to(dtype)
    net(x)  # the lazy layers see their input
    jelly.reset_net(net)
    for neuron in net.modules():
        if isinstance(neuron, MFPLeaky):
            neuron.reset_mem()
    try:
        expected = gradients(copy.deepcopy(net), x, saving=False)
    except RuntimeError:  # the surrogate of the user's saves its output, into which was written
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradients(net, x, saving=True)
    else:
        assert_equal(gradients(net, x, saving=True), expected)


def convolutions(neuron: Callable[[], nn.Module], pool: type[nn.Module] = nn.MaxPool2d) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1), nn.Unflatten(0, (4, 2)), neuron(), nn.Flatten(0, 1),
        nn.Conv2d(16, 16, 3, padding=1), nn.Unflatten(0, (4, 2)), neuron(), nn.Flatten(0, 1), pool(2),
        nn.Conv2d(16, 4, 3),
    )  # fmt: skip


KNOWN = [name for name in NEURONS if not name.endswith(("graded", "user's"))]


@pytest.mark.parametrize("name", [name for name in KNOWN if "step" not in name and name != "MFPLeaky"])
def test_spikes_take_a_bit_each(name: str) -> None:
    torch.manual_seed(0)
    net, x = convolutions(NEURONS[name]), torch.rand(8, 2, 20, 20)
    net(x)  # some neurons keep a state from call to call
    jelly.reset_net(net)
    plain = held_bytes(lambda: net(x), CPU)
    jelly.reset_net(net)
    ours = held_bytes(save_spikes_as_bits()(lambda: net(x)), CPU)
    spikes = 8 * 16 * 20 * 20
    places = spikes // 4
    # two maps of spikes, and the pooled one: 32 bits become 1; places of maxima: 64 bits become 16
    expected = plain - (2 * spikes + places) * (4 - 1 / 8) - places * 6
    assert ours <= expected + 4096  # small things, such as what pads bits to whole bytes


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_steps_are_kept_as_bits_too(step_mode: str) -> None:
    node, linear = MFPNode(step_mode=step_mode, reset=None, order=1), nn.Linear(1000, 1)
    x = torch.randn(8, 4, 1000).requires_grad_()

    def run() -> Tensor:
        return linear(node(x)).sum() if step_mode == "m" else sum(linear(node(step)).sum() for step in x)

    plain, ours = (held_bytes(save(run), CPU) for save in (lambda run: run, save_spikes_as_bits()))
    assert plain - ours >= 0.9 * x.numel() * 4


def test_spikes_that_many_layers_read_are_packed_once() -> None:
    x, readers = torch.randn(4, 2, 4096), nn.ModuleList(nn.Linear(4096, 1) for _ in range(9))
    neuron = MFP()

    def run() -> Tensor:
        spikes = neuron(x)
        return sum(reader(part).sum() for reader in readers for part in spikes)

    held = held_bytes(save_spikes_as_bits()(run), CPU)
    assert held < 3 * x.numel() / 8  # the bits, and 36 small outputs


def test_a_graph_that_is_dropped_frees_all_of_its_bits() -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)

    @save_spikes_as_bits()
    def run() -> None:
        net(x)

    assert held_bytes(run, CPU) == 0


@pytest.mark.parametrize("pool", [nn.MaxPool2d, layer.MaxPool2d])
def test_large_maps_are_pooled_right(pool: type[nn.Module]) -> None:
    """Places of maxima beyond what 16 bits can say."""
    net = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.Unflatten(0, (1, 1)), MFP(v_threshold=0.1), nn.Flatten(0, 1), pool(7)
    )
    x = torch.rand(1, 1, 210, 190)
    assert_equal(gradients(net, x, saving=True), gradients(net, x, saving=False))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_quantized_network_of_spikingjelly(fuse: bool, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    node = {"reset": None, "step_mode": "m", "v_threshold": 0.2}
    net = nn.Sequential(
        layer.Conv2d(2, 8, 3, padding=1), layer.BatchNorm2d(8), MFPNode(**node), layer.MaxPool2d(2),
        layer.Conv2d(8, 8, 3, padding=1), layer.BatchNorm2d(8), MFPNode(**node),
        layer.Flatten(), layer.Dropout(0.5), layer.Linear(8 * 25, 10), MFPNode(**node),
    )  # fmt: skip
    jelly.set_step_mode(net, "m")
    net = quantize_weights(net.to(memory_format=memory_format), bits=1)
    if fuse:
        net = convert(net, fuse=True)
    x = torch.rand(3, 2, 2, 10, 10)
    assert_equal(gradients(net, x, saving=True), gradients(copy.deepcopy(net), x, saving=False)[:])


def test_spikes_of_autocast_are_16_bits_and_become_one() -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)

    def run(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x).float()

    assert_equal(gradients(net, x, True, run), gradients(net, x, False, run))
    plain, ours = held_bytes(lambda: run(x), CPU), held_bytes(save_spikes_as_bits()(lambda: run(x)), CPU)
    assert plain - ours > 0.9 * 2 * 8 * 16 * 20 * 20 * 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_within_and_around_checkpoints(reentrant: bool) -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    expected = gradients(net, x, saving=False)

    def in_parts(x: Tensor) -> Tensor:
        for part in (net[:4], net[4:]):
            x = checkpoint(part, x, use_reentrant=reentrant)
        return x

    assert_equal(gradients(net, x, True, in_parts), expected)
    inside = lambda x: checkpoint(save_spikes_as_bits()(net), x, use_reentrant=reentrant)  # noqa: E731
    assert_equal(gradients(net, x, False, inside), expected)


@pytest.mark.filterwarnings("ignore:Using `torch.compile")  # torch's own word on hooks of every module
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_modules_are_right_and_it_is_said_that_nothing_is_gained(
    backend: str, said: pytest.LogCaptureFixture
) -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    expected = gradients(net, x, saving=False)
    torch.compiler.reset()
    compiled = torch.compile(net, backend=backend)
    assert_equal(gradients(net, x, True, compiled), expected)
    assert said.text.count("has no effect inside of what torch.compile made") == 1


@pytest.mark.filterwarnings("ignore")  # torch's tracer reads .grad of whatever a module gets
def test_compiled_layers_behind_neurons_that_are_not_still_save_bits() -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    expected = gradients(net, x, saving=False)
    torch.compiler.reset()
    net[4] = torch.compile(net[4], backend="aot_eager")
    assert_equal(gradients(net, x, saving=True), expected)


def test_twice_through_one_graph() -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    with save_spikes_as_bits():
        y = net(x).sum()
    first, second = (torch.autograd.grad(y, net[4].weight, retain_graph=True)[0] for _ in "ab")
    assert torch.equal(first, second)


def test_one_context_in_another() -> None:
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    expected = gradients(net, x, saving=False)
    assert_equal(gradients(net, x, True, save_spikes_as_bits()(net)), expected)
    with save_spikes_as_bits():
        with save_spikes_as_bits():
            pass
        plain = gradients(net, x, saving=False)
    assert_equal(plain, expected)


def test_a_weight_changed_before_backward_is_an_error_as_ever() -> None:
    """torch leaves the check to whoever keeps what is saved."""
    net, x = convolutions(NEURONS["MFP"]), torch.rand(8, 2, 20, 20)
    with save_spikes_as_bits():
        loss = net(x).sum()
    with torch.no_grad():
        net[4].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_error_in_a_pool_leaves_nothing_behind() -> None:
    """Integers that are saved after it are no places of its maxima."""
    index = torch.tensor([[70_000]])
    table = torch.rand(1, 70_001).requires_grad_()
    with save_spikes_as_bits():
        with pytest.raises(RuntimeError):
            nn.MaxPool2d(9)(torch.rand(1, 1, 2, 2))
        table.gather(1, index).sum().backward()
    assert table.grad is not None and table.grad.nonzero().tolist() == [[0, 70_000]]


def test_outside_of_it_modules_have_no_hooks() -> None:
    hooks = torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks
    before = [len(registered) for registered in hooks]
    with contextlib.suppress(ZeroDivisionError), save_spikes_as_bits():
        raise ZeroDivisionError
    assert [len(registered) for registered in hooks] == before
