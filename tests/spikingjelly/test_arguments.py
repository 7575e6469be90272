"""What MFPNode accepts, refuses, and shows."""

import inspect
import math

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate

from mfp_neurons import MFPNode
from tests.spikingjelly.common import V2


def test_lifnodes_arguments_stand_where_lifnode_has_them():
    ours = list(inspect.signature(MFPNode).parameters)
    theirs = list(inspect.signature(neuron.LIFNode).parameters)
    assert ours[:7] == theirs[:7]
    assert set(theirs) <= set(ours)


def test_lifnodes_defaults_are_ours():
    ours, theirs = (inspect.signature(kind).parameters for kind in (MFPNode, neuron.LIFNode))
    for name in ("tau", "decay_input", "v_threshold", "v_reset", "detach_reset", "step_mode", "store_v_seq"):
        assert ours[name].default == theirs[name].default, name


def test_positions_and_keywords_of_lifnode_both_work():
    by_position = MFPNode(3, False, 0.5, None, surrogate.ATan(), True, "m")
    by_keyword = MFPNode(
        tau=3.0, decay_input=False, v_threshold=0.5, v_reset=None, surrogate_function=surrogate.ATan(),
        detach_reset=True, step_mode="m",
    )  # fmt: skip
    assert repr(by_position) == repr(by_keyword)
    assert by_position.step_mode == "m" and by_position.tau == pytest.approx(3.0)
    of_two_zero = MFPNode(2.0, True, 1, None, surrogate.ATan(), False, "m", True)  # the eighth: store_v_seq
    assert of_two_zero.store_v_seq is True and of_two_zero.backend == "auto"


OUT_OF_RANGE = [
    ({"tau": 1.0}, "tau must be > 1"),
    ({"tau": 0}, "tau must be > 1"),
    ({"tau": math.nan}, "tau must be > 1"),
    ({"tau": math.inf}, "decay_input=False"),
    ({"v_threshold": math.nan}, "v_threshold must be finite"),
    ({"v_threshold": -math.inf}, "v_threshold must be finite"),
    ({"order": 0}, "order must be an integer >= 1"),
    ({"kernel": "fir"}, "order"),
    ({"kernel": "matrix"}, "time_steps"),
    ({"kernel": "spline"}, "kernel must be one of"),
    ({"time_steps": 4}, "time_steps"),
    ({"kernel_bits": 1, "order": 2}, "kernel_bits"),
    ({"kernel_bits": 9, "order": 2}, "kernel_bits"),
    ({"num_channels": 0, "learnable": True}, "num_channels must be an integer >= 1"),
    ({"backend": "gpu"}, "backend must be one of"),
    ({"step_mode": "multi"}, "step_mode"),
    ({"tau": math.inf, "decay_input": False, "learnable": True}, "strictly between 0 and 1"),
]
OF_THE_WRONG_KIND = [
    ({"tau": "2"}, "tau must be a number"),
    ({"tau": True}, "tau must be a number"),
    ({"tau": torch.tensor(2.0)}, "tau must be a number"),
    ({"v_threshold": torch.ones(3)}, "v_threshold must be a number"),
    ({"order": 2.0}, "order must be an integer"),
    ({"surrogate_function": "atan"}, "surrogate_function must be a callable"),
    ({"channels": 3}, r"MFPNode.__init__\(\) got an unexpected keyword argument 'channels'"),
]


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [*((ValueError, *row) for row in OUT_OF_RANGE), *((TypeError, *row) for row in OF_THE_WRONG_KIND)],
)
def test_a_wrong_argument_is_refused_by_name(error, options, words):
    with pytest.raises(error, match=words):
        MFPNode(**options)


def test_a_reset_voltage_is_ignored_and_that_is_said_once(said):
    for v_reset in (None, 0.0):
        MFPNode(v_reset=v_reset, reset=None)
    assert not said.records
    nodes = [MFPNode(v_reset=-0.5, reset=None), MFPNode(v_reset=1, kernel="matrix", time_steps=3)]
    (message,) = said.messages
    assert "v_reset" in message and "never reset" in message
    assert all(node.v_reset is None for node in nodes)


def test_editing_the_default_surrogate_of_one_node_leaves_the_others_alone():
    one, other = MFPNode(), MFPNode(surrogate_function=None)
    one.surrogate_function.alpha = 9.0
    assert other.surrogate_function.alpha == MFPNode().surrogate_function.alpha == 4.0
    assert neuron.LIFNode().surrogate_function.alpha == 4.0


def test_tau_can_be_read_and_changed():
    node = MFPNode(tau=4.0, step_mode="m")
    node.tau = 2
    assert node.tau == 2.0
    x = torch.randn(5, 2, 3)
    assert torch.equal(node(x), MFPNode(tau=2.0, step_mode="m")(x))
    assert MFPNode(tau=math.inf, decay_input=False).tau == math.inf
    with pytest.raises(ValueError, match="tau must be > 1"):
        node.tau = 1.0
    assert node.tau == 2.0


def test_a_learned_tau_is_read_from_the_parameter_and_not_overwritten():
    node = MFPNode(tau=3.0, learnable=True)
    assert node.tau.item() == pytest.approx(3.0) and not node.tau.requires_grad
    with pytest.raises(ValueError, match="decay_logit"):
        node.tau = 2.0
    with pytest.raises(ValueError, match="taps"):
        MFPNode(kernel="fir", order=2).tau = 2.0


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, {}),
        ({"learnable": True}, {"kernel.decay_logit": (1,)}),
        ({"learnable": True, "num_channels": 3}, {"kernel.decay_logit": (3,)}),
        ({"kernel": "fir", "order": 4}, {"kernel.taps": (4,)}),
        ({"kernel": "fir", "order": 4, "num_channels": 3}, {"kernel.taps": (4, 3)}),
        ({"kernel": "matrix", "time_steps": 4}, {"kernel.matrix": (4, 4)}),
    ],
)
def test_the_state_dict_holds_parameters_alone_and_none_is_a_scalar(options, parameters):
    node = MFPNode(**options)
    node(torch.ones(2, 3))
    assert {name: tuple(value.shape) for name, value in node.state_dict().items()} == parameters
    assert not list(node.buffers())
    other = MFPNode(**options)
    other.load_state_dict(node.state_dict(), strict=True)


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [{"learnable": True}, {"kernel": "fir", "order": 3}, {"kernel": "matrix", "time_steps": 3}],
    ids=str,
)
def test_parameters_are_float32_whatever_the_default_dtype(default, options):
    (expected,) = MFPNode(tau=3.0, **options).parameters()
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        (value,) = MFPNode(tau=3.0, **options).parameters()
    finally:
        torch.set_default_dtype(before)
    assert value.dtype == torch.float32 and torch.allclose(value, expected)


def test_repr_says_what_the_neuron_is():
    text = repr(MFPNode(tau=3.0, v_threshold=0.5, order=4, learnable=True, step_mode="m", store_v_seq=True))
    for part in ("tau=3", "v_threshold=0.5", "order=4", "learnable=True", "step_mode=m", "store_v_seq=True"):
        assert part in text
    node = MFPNode()
    node.v_threshold = torch.nn.Parameter(torch.ones(3))
    assert "v_threshold=tensor[3]" in repr(node)


def test_a_backend_is_refused_by_name_when_set_and_by_device_when_used():
    node = MFPNode(backend="torch")
    assert {"auto", "torch", "cpu"} <= set(node.supported_backends) <= {"auto", "torch", "cpu", "cupy"}
    with pytest.raises(ValueError, match="backend must be one of"):
        node.backend = "lava"
    assert node.backend == "torch"
    node.backend = "cupy"  # a model may be built where it will not run
    with pytest.raises((RuntimeError, ValueError), match="cupy"):
        node(torch.ones(2, 3))


@pytest.mark.skipif(V2, reason="2.0.0 has no set_backend")
def test_set_backend_sets_what_it_can_and_keeps_the_rest():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), MFPNode())
    functional.set_backend(net, "torch")
    assert net[1].backend == "torch"
    functional.set_backend(net, "lava")
    assert net[1].backend == "torch"


def test_the_kernels_exist_outside_the_reset_and_step_mode_walks():
    node = MFPNode(learnable=True)
    assert not hasattr(node.kernel, "reset") and not hasattr(node.kernel, "step_mode")


class Doubled(MFPNode):
    """What a subclass does around a step."""

    def single_step_forward(self, x):
        return super().single_step_forward(2 * x)


def test_a_subclass_that_overrides_a_step_is_refused_in_the_other_mode():
    x = torch.randn(5, 2, 3)
    assert torch.equal(Doubled()(x[0]), MFPNode()(2 * x[0]))
    with pytest.raises(NotImplementedError, match="Doubled must override multi_step_forward"):
        Doubled(step_mode="m")(x)

    class Whole(MFPNode):
        def multi_step_forward(self, x_seq):
            return super().multi_step_forward(2 * x_seq)

    assert torch.equal(Whole(step_mode="m")(x), MFPNode(step_mode="m")(2 * x))
    with pytest.raises(NotImplementedError, match="Whole must override single_step_forward"):
        Whole()(x[0])

    class Both(Doubled, Whole):
        pass

    steps, sequence = Both(), Both(step_mode="m")
    assert torch.equal(torch.stack([steps(step) for step in x]), sequence(x))


class Halved(MFPNode):
    """2.0.0's way: explicit states. It sees tensors, also at rest."""

    def single_step_functional_forward(self, inputs, states, **kwargs):
        assert all(isinstance(state, torch.Tensor) for state in states)
        (out,), states = super().single_step_functional_forward((inputs[0] / 2,), states)
        return (1 - out,), states


class HalvedInBoth(Halved):
    def multi_step_functional_forward(self, inputs, states, **kwargs):
        assert all(isinstance(state, torch.Tensor) for state in states)
        (out,), states = super().multi_step_functional_forward((inputs[0] / 2,), states)
        return (1 - out,), states


@pytest.mark.parametrize("options", [{}, {"order": 3}, {"order": 1}], ids=str)
def test_a_subclass_may_override_the_functional_forward(options):
    x = torch.randn(5, 2, 3)
    expected = 1 - MFPNode(step_mode="m", **options)(x / 2)
    node = Halved(**options)
    assert torch.equal(torch.stack([node(step) for step in x]), expected)
    assert torch.equal(HalvedInBoth(step_mode="m", **options)(x), expected)
    node.reset()
    node.step_mode = "m"
    with pytest.raises(NotImplementedError, match="must override multi_step_functional_forward"):
        node(x)
    with pytest.raises(NotImplementedError, match="store_v_seq"):
        HalvedInBoth(step_mode="m", store_v_seq=True)(x)


@pytest.mark.parametrize("phase", ["neuronal_charge", "neuronal_fire", "neuronal_reset"])
def test_the_phases_of_a_step_can_neither_be_called_nor_overridden(phase):
    with pytest.raises(NotImplementedError, match="computes all steps in one operator"):
        getattr(MFPNode(), phase)(*[torch.ones(2)] * (phase != "neuronal_fire"))
    with pytest.raises(TypeError, match=f"Own overrides {phase}, which MFPNode never calls"):
        type("Own", (MFPNode,), {phase: lambda self, *args: None})
