"""Which published networks lower, and on how many random inputs the integers say what the model says.

    python -m benchmarks.published_table                     # all, into the results and docs/published.md
    python -m benchmarks.published_table --only spikformer   # some of them, printed
    python -m benchmarks.published_table --show              # the page from the results alone

Each network of ``benchmarks.published`` is quantized (1 bit, first and last layer 8), gets thresholds that
about a fifth of its first currents reach and, in its batch norms, the statistics of an input. It is lowered,
and its integers are compared with the same model in float64. Where a bound is stated and they differ, they
are compared once more: a potential within its bound of the threshold then fires as the integers say.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from benchmarks.evidence.page import between
from benchmarks.published import NETWORKS, Published
from mfp_neurons import convert, deploy, quantize, quantize_weights
from mfp_neurons.adapters import is_neuron
from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import Graph, Neurons
from mfp_neurons.deploy.inputs import read
from mfp_neurons.network import describe
from mfp_neurons.network.axes import places
from mfp_neurons.train import tables
from mfp_neurons.train.checkpoint import write_json

RESULTS = Path(__file__).parent / "results" / "published.json"
PAGE = Path(__file__).parents[1] / "docs" / "published.md"
SEED, INPUTS = 0, 5
ROUNDING = 1e-6


def prepared(network: Published) -> nn.Module:
    """The network as if it had been trained: quantized, and its neurons fire."""
    torch.manual_seed(SEED)
    model = quantize_weights(network.build())
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain average
            if module.affine:
                nn.init.normal_(module.weight, 0.5, 0.8)
                nn.init.normal_(module.bias, 0.2, 0.5)
    example = network.example(torch.Generator().manual_seed(SEED))
    with torch.no_grad(), reachable_thresholds(model):
        for _ in range(network.steps or 1):
            model.train()(example)
    reset(model)
    return model.eval()


@contextmanager
def reachable_thresholds(model: nn.Module) -> Iterator[None]:
    """Each neuron gets the threshold that a fifth of its first currents reach."""
    done = set()

    def fit(module: nn.Module, arguments: Any) -> None:
        if module in done:
            return
        done.add(module)
        threshold = max(0.05, round(float(arguments[0].double().quantile(0.8)), 3))
        if hasattr(module, "v_threshold"):
            module.v_threshold = threshold  # type: ignore[assignment]
        elif isinstance(held := getattr(module, "threshold", None), Tensor):
            held.data.fill_(threshold)

    hooks = [m.register_forward_pre_hook(fit) for m in model.modules() if is_neuron(m)]
    yield
    for hook in hooks:
        hook.remove()


def reset(model: nn.Module) -> None:
    """Potentials to rest, of neurons of either framework."""
    functional.reset_net(model)
    for module in model.modules():
        if is_neuron(module) and hasattr(module, "reset_mem"):
            cast(Any, module).reset_mem()


def in_float64(network: Published, model: nn.Module, graph: Graph) -> nn.Module:
    """The model in float64, its weights codes times scales; taps rounded as the integers have them."""
    exact = deepcopy(model)
    for module in exact.modules():
        if isinstance(module, LIFNode):  # of a subclass, whose spikes are these
            module.__class__ = LIFNode
    if network.kernel_bits is not None:
        # of neurons whose potential alone is read out, lowering rounds no taps
        firing = {op.name for op in graph.ops if isinstance(op, Neurons)}
        silent = {path: m for path, m in exact.named_modules() if is_neuron(m) and path not in firing}
        for path in silent:
            exact.set_submodule(path, nn.Identity())
        exact = convert(exact, reset="keep", order=graph.steps, kernel_bits=network.kernel_bits)
        for path, module in silent.items():
            exact.set_submodule(path, module)
    plain = quantize.materialize(exact).double().eval()
    for path, module in exact.named_modules():
        if quantize.is_quantized(module):
            codes = quantize.codes(module)
            weight = plain.get_submodule(path).get_parameter("weight")
            with torch.no_grad():
                weight.copy_(codes.codes.double() * codes.scale.double())
    for module in plain.modules():
        if not is_neuron(module) and not list(module.children()):
            # snnTorch's surrogates give spikes in float32, whatever came in
            module.register_forward_pre_hook(
                lambda _, arguments: tree_map_only(Tensor, Tensor.double, arguments)
            )
    return plain


@torch.no_grad()
def answer(network: Published, model: nn.Module, x: Tensor) -> list[np.ndarray]:
    """What the model returns, as a list; every step of one that takes single steps."""
    reset(model)
    if network.steps is None:
        returned = [model(x)]
    else:
        returned = [model(x) for _ in range(network.steps)]
    reset(model)
    each = [one if isinstance(one, tuple) else (one,) for one in returned]
    heads = list(zip(*each, strict=True))
    return [
        (head[0] if network.steps is None else torch.stack(head)).numpy()
        for head in heads
        if head[0] is not None
    ]


def time_first(scores: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a model returns as an integer network gives it: steps first, wherever the model has them."""
    places = [place for place in range(scores.ndim) if np.moveaxis(scores, place, 0).shape == shape]
    return np.moveaxis(scores, places[0], 0) if places else scores.reshape(shape)


class Undecided(nn.Module):
    """A surrogate function that gives the integers' spike where a potential's bound leaves it open.

    Args:
        inner: the surrogate function itself.
        spikes: the integers', [T, N, *].
        bound: of each neuron of a step [*].
    """

    def __init__(self, inner: nn.Module, spikes: Tensor, bound: Tensor) -> None:
        super().__init__()
        self.inner, self.spikes, self.bound = inner, iter(spikes), bound

    def forward(self, distance: Tensor) -> Tensor:
        theirs = next(self.spikes).reshape(distance.shape).to(distance)
        unsure = distance.abs() <= self.bound.reshape(distance.shape[1:])
        return torch.where(unsure, theirs, self.inner(distance))


def answer_within_bounds(
    network: Published, model: nn.Module, reference: nn.Module, graph: Graph, x: Tensor
) -> list[np.ndarray]:
    """What the model returns in float64 where the integers decide what their bounds leave open."""
    levels, steps = read(graph, x)
    _, maps = interpret.run(graph, levels.astype(np.int64), steps)
    # behind attention the features of a neuron lie in another order than those of its map
    layers = {one.name: one for one in describe(model, x, steps=network.steps).layers}
    decided: Any = deepcopy(reference)
    for op, spikes in zip(graph.ops, maps[1:], strict=False):
        if isinstance(op, Neurons):
            dims = layers[op.name].sources[0].dims
            order = places([axis for dim in dims for axis in dim])
            fired = spikes.reshape(*spikes.shape[:2], -1)[..., order]
            bound = np.broadcast_to(op.error[:, None, None], op.shape).reshape(-1)[order]
            neuron = decided.get_submodule(op.name)
            neuron.surrogate_function = Undecided(
                neuron.surrogate_function, torch.from_numpy(fired), torch.from_numpy(bound.copy())
            )
    return answer(network, decided, x.double())


def row(network: Published) -> dict[str, Any]:
    """Whether a network lowers, on how many inputs it agrees and how far it is off; or why it is refused."""
    generator = torch.Generator().manual_seed(SEED + 1)
    example = network.example(generator)
    options: dict[str, Any] = {"steps": network.steps, "kernel_bits": network.kernel_bits}
    if not bool(((example == 0) | (example == 1)).all()):
        options["levels"] = 255
    try:
        model = prepared(network)
    except ValueError:  # of a layer that cannot be quantized
        return refused(network, network.build(), example, options)
    began = time.process_time()  # other work on the machine does not count
    try:
        integers = deploy.lower(model, example, **options)
    except ValueError:
        return refused(network, model, example, options)
    seconds = time.process_time() - began
    reference = in_float64(network, model, integers.graph)
    neurons = [op for op in integers.graph.ops if isinstance(op, Neurons)]
    bound = max((float(op.error.max()) for op in neurons), default=0.0)
    agreed, within, off, alike = 0, 0, 0.0, True
    for _ in range(INPUTS):
        x = network.example(generator)
        scores = integers.run(x.numpy())
        heads = list(scores) if isinstance(scores, tuple) else [scores]
        wanted = answer(network, reference, x.double())[: len(heads)]  # potentials beside spikes are left out
        alike &= not np.ptp(wanted[0])
        worst = difference(heads, wanted)
        off = max(off, worst)
        agreed += worst <= ROUNDING
        if worst > ROUNDING and bound:
            wanted = answer_within_bounds(network, model, reference, integers.graph, x)
            within += difference(heads, wanted[: len(heads)]) <= ROUNDING
    if alike:
        raise RuntimeError(f"{network.name} gives the same numbers for every input, which tests nothing")
    return {
        "name": network.name,
        "lowers": True,
        "agrees": agreed,
        "agrees_within_bound": within,
        "of": INPUTS,
        "bound": float(f"{bound:.0e}"),
        "largest_difference": float(f"{off:.0e}"),
        "seconds": round(seconds, 1),
    }


def refused(network: Published, model: nn.Module, example: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """The row of a network that does not lower: the first obstacle, besides that its weights are real."""
    obstacles = deploy.check(model, example, **options).obstacles
    why = next(str(one) for one in obstacles if "weights that are real" not in one.reason)
    return {"name": network.name, "lowers": False, "why": why}


def difference(heads: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The largest difference of all tensors, beside the largest number of each."""
    return max(
        float(np.abs(a - time_first(b, a.shape)).max() / (1 + np.abs(b).max()))
        for a, b in zip(heads, wanted, strict=True)
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A row for each network, and below the table why some are refused."""
    text = tables.markdown(
        ("network", "agrees", "bound", "seconds"),
        (
            (one["name"], _agreement(one), f"{one['bound']:g}", f"{one['seconds']:.1f}")
            if one["lowers"]
            else (one["name"], "refused", "", "")
            for one in rows
        ),
    )
    why = [
        f"- **{one['name']}** is refused: {' '.join(one['why'].split())}" for one in rows if not one["lowers"]
    ]
    return "\n".join([text, "", *why]) if why else text


def _agreement(row: dict[str, Any]) -> str:
    within = row["agrees_within_bound"]
    return f"{row['agrees']} of {row['of']}" + (f", {within} within its bound" if within else "")


def summary(groups: dict[str, list[dict[str, Any]]]) -> str:
    """How many of the networks lower, and how long the deepest ones take."""
    rows = [one for group in groups.values() for one in group]
    lowered = [one for one in rows if one["lowers"]]
    deepest = [one["seconds"] for one in lowered if "resnet50" in one["name"]]
    slowest = max(lowered, key=lambda one: one["seconds"])
    return (
        f"Of {len(rows)} networks {len(lowered)} lower. Those of 50 layers take {min(deepest):.0f} to "
        f"{max(deepest):.0f} seconds, the slowest of all ({slowest['name']}) {slowest['seconds']:.0f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="networks with this in their name; nothing is written")
    parser.add_argument("--show", action="store_true", help="lower nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not args.show:
        found: dict[str, list[dict[str, Any]]] = {}
        for group, networks in NETWORKS.items():
            found[group] = []
            for network in networks:
                if not args.only or args.only in network.name:
                    found[group].append(row(network))
                    print(found[group][-1], flush=True)
        if args.only:
            return
        write_json(RESULTS, found)
    groups = json.loads(RESULTS.read_text())
    text = between(PAGE.read_text(), "summary", summary(groups))
    for number, rows in enumerate(groups.values()):
        text = between(text, f"group-{number}", table(rows))
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
