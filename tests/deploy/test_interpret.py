"""The interpreter against what torch makes of the same network, and against itself step by step."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

from mfp_neurons.deploy import interpret
from mfp_neurons.deploy.graph import (
    Concat,
    CurrentPool,
    Currents,
    Gather,
    Ints,
    MatMul,
    Neurons,
    Ones,
    Op,
    Pool,
    Product,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
)
from tests.deploy.agreement import assert_same, up_to
from tests.deploy.graphs import Case, cases, dense, fires


def reached(x: Tensor, window: Window, out: tuple[int, ...], value: float) -> Tensor:
    """A map [T * N, C, H, W] with its padding, and no row or column that no output sees."""
    for axis, (size, stride, before, dilation) in enumerate(
        zip(window.size, window.stride, window.padding, window.dilation, strict=True), start=2
    ):
        wanted = (out[axis - 2] - 1) * stride + (size - 1) * dilation + 1
        after = wanted - before - x.shape[axis]
        margins = [0, 0, before, max(0, after)] if axis == 2 else [before, max(0, after)]
        x = F.pad(x, margins, value=value).narrow(axis, 0, wanted)
    return x


def pooled(x: Tensor, kind: str, window: Window, out: tuple[int, ...]) -> Tensor:
    """Pooling as torch does it: of float64, which holds these numbers exactly."""
    if kind == "max":
        x = reached(x, window, out, float("-inf"))
        return F.max_pool2d(x, window.size, window.stride, 0, window.dilation)
    ones = torch.ones(x.shape[1], 1, *window.size, dtype=torch.float64)
    x = reached(x, window, out, 0.0)
    return F.conv2d(x, ones, stride=window.stride, dilation=window.dilation, groups=x.shape[1])


def current(synapses: tuple[Synapse, ...], maps: list[Tensor]) -> Tensor:
    """Currents int64 [T, N, C, H, W]: what torch convolves in float64, below 2**31, times the factors."""
    total: Tensor | int = 0
    for s in synapses:
        source = maps[s.source]
        x = reached(source.flatten(0, 1), s.window, s.shape[1:], 0.0)
        weight = torch.from_numpy(s.codes).double()
        acc = F.conv2d(x, weight, stride=s.window.stride, dilation=s.window.dilation, groups=s.groups)
        if isinstance(s.pool, CurrentPool):
            acc = pooled(acc, s.pool.kind, s.pool.window, s.pool.shape[1:])
        acc = acc.unflatten(0, source.shape[:2]).long()
        factor = (
            torch.ones(len(s.codes), dtype=torch.int64) if s.factor is None else torch.from_numpy(s.factor)
        )
        total = total + acc * factor[:, None, None]
    assert isinstance(total, Tensor)
    return total


def matrix_of(taps: Ints, steps: int, channels: int) -> Tensor:
    """The matrix M[t, s] that taps [1 or T, K, 1 or C] are: the tap of lag t - s."""
    matrix = torch.zeros(steps, steps, channels, dtype=torch.int64)
    for t in range(steps):
        for s in range(max(0, t - taps.shape[1] + 1), t + 1):
            matrix[t, s] = torch.from_numpy(taps[t if len(taps) > 1 else 0, t - s])
    return matrix


def filtered(matrix: Tensor, x: Tensor) -> Tensor:
    """u = M x over time."""
    return (matrix[:, :, None, :, None, None] * x[None]).sum(1)


def spikes(op: Neurons, x: Tensor, steps: int) -> Tensor:
    """Neurons by the matrix that their taps are: u = M x."""
    x = x.expand(steps, *x.shape[1:])
    matrix = matrix_of(op.taps, steps, x.shape[2])
    if op.feedback is not None or op.recurrent:
        return in_turn(op, matrix, x)
    potential = filtered(matrix, x)
    rows = torch.arange(steps).clamp(max=len(op.thresholds) - 1)
    return (potential >= torch.from_numpy(op.thresholds)[rows][:, None, :, None, None]).double()


def in_turn(op: Neurons, matrix: Tensor, x: Tensor) -> Tensor:
    """The same with own spikes, which are weighed, before which a row of the matrix is cut off, or which
    come back through synapses."""
    feedback, steps = op.feedback, len(x)
    kind = "" if feedback is None else feedback.kind
    fired = torch.zeros(x.shape, dtype=torch.int64)
    table = torch.from_numpy(op.thresholds).reshape(-1, op.choices, x.shape[2])
    taps = torch.zeros(steps + 1, x.shape[2], dtype=torch.int64)  # by lag
    if feedback is not None and feedback.taps is not None:
        own = torch.from_numpy(feedback.taps)[:steps].expand(-1, x.shape[2])
        taps[1 : len(own) + 1] = own
    channels = torch.arange(x.shape[2])[:, None, None]
    back = [replace(synapse, source=0) for synapse in op.recurrent]
    for t in range(steps):
        inputs = x
        if back:  # of all steps anew: later ones have not fired, and weigh nothing yet
            earlier = torch.cat([torch.zeros_like(fired[:1]), fired[:-1]])
            inputs = x + current(tuple(back), [earlier.double()])
        weights = matrix[t][:, None, :, None, None].expand(x.shape)
        # after step s there was no spike, that is from s to t - 1
        silent = torch.stack([fired[s:t].sum(0) == 0 for s in range(steps)])
        row = torch.full(x.shape[1:], t)
        if kind == "age":
            weights, row = weights * silent, silent[:t].sum(0)
        potential = (weights * inputs).sum(0)
        added = sum((taps[t - s][:, None, None] * fired[s] for s in range(t)), torch.zeros_like(row))
        if kind == "sum":
            potential = potential * 2**feedback.shift + added  # type: ignore[union-attr]
        choice = added - int(taps[:, 0].clamp(max=0).sum()) if kind == "table" else row * 0
        if kind == "table":  # taps that lie beyond the sequence count as well
            choice = choice - int(feedback.taps[steps:].clip(max=0).sum())  # type: ignore[union-attr, index]
        fired[t] = potential >= table[row.clamp(max=len(table) - 1), choice, channels]
    return fired.double()


def read_out(op: Scores, maps: list[Tensor], steps: int) -> Tensor:
    """Scores int64 [T, N, C, H, W]: each synapse by the matrix that its taps are."""
    total = torch.from_numpy(op.offset)[torch.arange(steps).clamp(max=len(op.offset) - 1)]
    total = total[:, None, :, None, None]
    for number, synapse in enumerate(op.synapses):
        x = current((synapse,), maps)
        x = x.expand(steps, *x.shape[1:])
        if op.taps is not None:
            x = filtered(matrix_of(op.taps[number : number + 1], steps, x.shape[2]), x)
        total = total + x
    return total


def made(op: Op, maps: list[Tensor], steps: int) -> Tensor:
    match op:
        case Neurons():
            return spikes(op, current(op.synapses, maps), steps)
        case Pool():
            x = maps[op.source]
            return pooled(x.flatten(0, 1), op.kind, op.window, op.shape[1:]).unflatten(0, x.shape[:2])
        case TimePool():
            x = maps[op.source]
            return torch.stack([part.amax(0) for part in x.split(op.window)])
        case Sum():
            return sum(w * maps[i] for i, w in zip(op.sources, op.weights, strict=True))  # type: ignore[return-value]
        case Concat():
            parts = [w * maps[i] for i, w in zip(op.sources, op.weights, strict=True)]
            longest = max(len(part) for part in parts)
            return torch.cat([part.expand(longest, *part.shape[1:]) for part in parts], 2)
        case Currents():
            total = current(op.synapses, maps) + torch.from_numpy(op.offset)[:, None, None]
            return (total.double() / 2**op.shift).floor()
        case Gather():
            x = maps[op.source].flatten(2)
            filled = torch.cat([x, torch.full_like(x[..., :1], op.fill)], -1)  # whose last place is -1
            return filled[..., torch.from_numpy(op.places)].unflatten(2, op.shape)
        case Ones():
            return torch.ones_like(maps[op.source])
        case Product():
            return maps[op.sources[0]] * maps[op.sources[1]]
        case MatMul():
            left, right = (maps[source] for source in op.sources)
            return (left[..., None] * right[:, :, :, None]).sum(-2)
        case Scores():
            return read_out(op, maps, steps)


@given(cases())
def test_every_map_and_score_is_what_torch_makes(case: Case) -> None:
    scores, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    expected = [torch.from_numpy(case.levels).double()]
    for op, steps in zip(case.graph.ops, case.own_steps[1:], strict=True):
        expected.append(made(op, expected, steps))
    for index, (mine, theirs) in enumerate(zip([*maps, *scores], expected, strict=True)):
        assert mine.shape == tuple(theirs.shape), f"map {index}"
        np.testing.assert_array_equal(mine, theirs.numpy(), err_msg=f"map {index}")


@given(cases())
def test_a_stream_makes_the_same_maps_and_scores_step_by_step(case: Case) -> None:
    scores, maps = interpret.run(case.graph, case.levels.astype(np.int64), case.steps)
    networks = [*(up_to(case.graph, index) for index in range(len(maps))), case.graph]
    results = [*([made] for made in maps), scores]
    for index, (graph, expected) in enumerate(zip(networks, results, strict=True)):
        stream = interpret.Stream(graph)
        for t in range(case.steps):
            own, rest = divmod(t + 1, case.graph.periods[index])
            wanted = None if rest else [each[min(own, len(each)) - 1] for each in expected]
            mine = stream.step(case.levels[min(t, len(case.levels) - 1)])
            assert_same(mine, wanted, f"step {t}, map {index}")


@given(cases())
def test_a_stream_keeps_no_more_than_it_says(case: Case) -> None:
    stream = interpret.Stream(case.graph)
    samples = case.levels.shape[1]
    for t in range(case.steps):
        stream.step(case.levels[min(t, len(case.levels) - 1)])
        # all that it holds; what a stream says of itself is counted from the graph
        kept = [bits for past in (*stream._past.values(), stream._open.values()) for bits, _ in past]
        bits = 8 * sum(array.nbytes for array in kept)
        assert bits <= case.graph.state_bits() * samples + 7 * len(kept)  # whole bytes


def test_an_example_worked_out_by_hand() -> None:
    """Inputs a and b, weights +1 and -1, taps 2 and 1: u[t] = 2 (a[t] - b[t]) + a[t-1] - b[t-1] against 1."""
    a, b = [1, 0, 0, 1, 0], [0, 0, 1, 1, 0]
    x = np.array([a, b]).T.reshape(5, 1, 2, 1, 1)
    # u = 2, 1, -2, -1, 0
    neurons = fires(dense(0, [[1, -1]]), [2, 1], [1])
    assert interpret.evaluate(neurons, [x], 5).ravel().tolist() == [1, 1, 0, 0, 0]
