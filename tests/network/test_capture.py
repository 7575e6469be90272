"""Capturing: the model runs on tensors without numbers, and is exactly as it was afterwards."""

import threading
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights
from mfp_neurons.deploy.errors import LoweringError
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.network.capture import Capture, StandIn
from tests.deploy.lowering import Do, Each, check_agreement, events, neuron, norm, prepared


def network(threshold: float = 0.3) -> nn.Module:
    def forward(x, first, fire, drop, out):
        return out(drop(fire(first(x))).flatten(2)).mean(0)

    first = Each(nn.Conv2d(1, 4, 3), norm(nn.BatchNorm2d, 4))
    return prepared(Do(forward, first, neuron(threshold), nn.Dropout(0.5), nn.Linear(4 * 9, 3)))


def test_nothing_about_the_model_changes() -> None:
    model = network()
    model.train()
    model.layers[0].eval()
    model.cached = torch.ones(3)
    before = deepcopy(model.state_dict())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    objects = {name: (id(tensor), tensor._version) for name, tensor in tensors}
    training = [module.training for module in model.modules()]
    attributes = [dict(vars(module)) for module in model.modules()]
    random = torch.random.get_rng_state()
    graph = lower_graph(model, events(1, 5, 5))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        assert torch.equal(tensor, before[name])
        assert objects[name] == (id(tensor), tensor._version)
    assert model.state_dict().keys() == before.keys()
    assert [module.training for module in model.modules()] == training
    for module, kept in zip(model.modules(), attributes, strict=True):
        assert list(vars(module)) == list(kept)
        assert all(vars(module)[name] is value for name, value in kept.items())
    assert torch.equal(torch.random.get_rng_state(), random)
    again = check_agreement(model.eval(), events(1, 5, 5))  # the mode in which it was read
    assert (graph.ops[0].thresholds == again.ops[0].thresholds).all()


@pytest.mark.parametrize("fails", [False, True])
def test_calls_of_modules_are_torchs_own_again_afterwards(fails: bool) -> None:
    original = nn.Module.__call__
    model = Do(lambda x: x.relu()) if fails else network()
    try:
        lower_graph(model, events(1, 5, 5))
    except LoweringError:
        assert fails
    assert nn.Module.__call__ is original


def test_nothing_is_computed() -> None:
    """A batch and a sequence that no memory could hold."""
    seen = []

    class Listens:
        def function(self, name, args, kwargs, on_meta):
            seen.append(name)
            return StandIn(tuple(on_meta().shape), None, args[0].capture)

        def module(self, module, path, args, kwargs):
            return NotImplemented

    model = nn.Sequential(nn.Flatten(2), nn.Linear(10**6, 10))
    (out,) = Capture(model, Listens()).run((10**6, 10**6, 10, 10**5), [None])
    assert seen == ["flatten", "linear"]
    assert out.shape == (10**6, 10**6, 10)


def test_hooks_do_not_run_and_that_is_said(said: pytest.LogCaptureFixture) -> None:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        raise AssertionError("ran")

    model = network()
    model.layers[1].register_forward_hook(hook)
    lower_graph(model, events(1, 5, 5))
    assert "layers.1" in said.text
    assert "forward hooks are not run" in said.text
    assert len(model.layers[1]._forward_hooks) == 1


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_hooks_that_compute_a_weight_are_followed(said: pytest.LogCaptureFixture) -> None:
    layer = nn.utils.weight_norm(quantize_weights(nn.Linear(4, 2, bias=False), bits=4))
    with torch.no_grad():
        layer.weight_g.mul_(3)  # as an optimizer does; the weight is that of the last forward still
    held, x = layer.weight, torch.eye(4).reshape(1, 4, 4)
    scores = deploy.lower(layer, x).run(x)
    assert layer.weight is held and "hooks" not in said.text
    torch.testing.assert_close(torch.from_numpy(scores), layer(x).detach().double())


def test_other_threads_run_their_models_meanwhile() -> None:
    inside, done = threading.Event(), threading.Event()
    other = nn.Linear(2, 2)
    found: list[Tensor] = []

    def work() -> None:
        inside.wait(10)
        found.append(other(torch.ones(1, 2)))
        done.set()

    def forward(x, fire):
        inside.set()
        done.wait(10)
        return fire(x).mean(0)

    thread = threading.Thread(target=work)
    thread.start()
    lower_graph(Do(forward, neuron()), events(4))
    thread.join()
    torch.testing.assert_close(found[0], other(torch.ones(1, 2)))


def test_two_threads_lower_one_after_the_other() -> None:
    models = [network(0.1 * i) for i in range(1, 5)]
    graphs: dict[int, Any] = {}

    def work(place: int) -> None:
        graphs[place] = lower_graph(models[place], events(1, 5, 5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = [lower_graph(model, events(1, 5, 5)).ops[0].thresholds for model in models]
    assert all((graphs[i].ops[0].thresholds == alone[i]).all() for i in range(len(models)))


def test_a_tensor_can_be_asked_for_shape_dtype_and_device_and_be_printed() -> None:
    def forward(x, fire):
        assert x.dim() == len(x.shape) == x.ndim == 3
        assert (len(x), x.size(1), x.numel()) == (4, 2, 40)
        assert (x.dtype, x.device) == (torch.float32, torch.device("cpu"))
        assert x.is_floating_point() and not x.requires_grad and isinstance(x, Tensor)
        assert f"{x} {x!r}" == "StandIn([4, 2, 5]) StandIn([4, 2, 5])"
        return fire(x).mean(0)

    lower_graph(Do(forward, neuron()), events(5))


def aliased(x, a, b):
    y = a(x)
    alias = y
    y += b(x)
    y.mul_(0.5)
    return alias


def viewed(x, a, b):
    y = a(x.flatten(0, 1))
    y = y.unflatten(0, x.shape[:2])  # the view in between is gone
    y += 0.25
    return y


@pytest.mark.parametrize("current", [aliased, viewed])
def test_writing_in_place_is_followed_where_no_view_sees_it(current: Callable[..., Tensor]) -> None:
    layers = nn.Linear(6, 5), nn.Linear(6, 5), neuron(), nn.Linear(5, 3)
    model = Do(lambda x, a, b, fire, out: out(fire(current(x, a, b))).mean(0), *layers)
    check_agreement(prepared(model), events(6))


def test_writing_where_a_view_is_still_in_use_is_refused() -> None:
    def forward(x, a, fire):
        y = a(x)
        seen = y.flatten(0, 1)
        y += 1
        return fire(seen.unflatten(0, x.shape[:2])).mean(0)

    with pytest.raises(LoweringError, match="of which a view is still in use"):
        lower_graph(prepared(Do(forward, nn.Linear(6, 5), neuron())), events(6))


def test_a_compiled_model_and_a_compiled_part_are_what_was_compiled() -> None:
    model = network()
    names = [op.name for op in lower_graph(model, events(1, 5, 5)).ops]
    graph = lower_graph(torch.compile(model, backend="eager"), events(1, 5, 5))
    assert [op.name for op in graph.ops] == names
    model.layers[0] = torch.compile(model.layers[0], backend="eager")
    check_agreement(model, events(1, 5, 5))


def test_a_scripted_function_is_refused() -> None:
    scripted = torch.jit.script(_add_one)
    with pytest.raises(LoweringError, match=r"outside torch's Python functions"):
        lower_graph(Do(lambda x: scripted(x)), events(6))


def _add_one(x: Tensor) -> Tensor:
    return x + 1
