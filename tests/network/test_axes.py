"""Axes say which numbers a dimension holds: followed through views and permutations, as torch moves them."""

from math import prod

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.network.axes import Axis, Dims, flat, join, merged, of_features, regroup, sizes

TIME, BATCH = (Axis("T", 3),), (Axis("N", 2),)


def places(dims: Dims, features: int) -> np.ndarray:
    """For every element, where it is in [T, N, features]: what the axes say."""
    found = np.zeros(1, np.int64)
    for dim in dims:
        for axis in dim:
            step = {"T": 2 * features, "N": features, "F": axis.stride}[axis.kind]
            found = (found[:, None] + np.arange(axis.size) * step).ravel()
    return found.reshape(sizes(dims))


@st.composite
def moves(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[tuple[str, list[int]]]]:
    """A map's shape, and views and permutations of [T, N, C, H, W] that torch accepts."""
    shape = tuple(draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(3))
    now = [3, 2, *shape]
    steps: list[tuple[str, list[int]]] = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(now))))
            steps.append(("permute", order))
            now = [now[i] for i in order]
        else:
            now = draw(st.permutations(_factors(prod(now), draw)))
            steps.append(("reshape", now))
    return shape, steps


def _factors(number: int, draw: st.DrawFn) -> list[int]:
    found = []
    while number > 1 and len(found) < 5:
        factor = draw(st.sampled_from([n for n in range(1, number + 1) if number % n == 0]))
        found.append(factor)
        number //= factor
    return [*found, number]


@given(moves())
def test_axes_follow_what_torch_does(case):
    shape, steps = case
    features = prod(shape)
    tensor = torch.arange(6 * features).reshape(3, 2, *shape)
    dims: Dims | None = (TIME, BATCH, *of_features(shape))
    for name, argument in steps:
        tensor = getattr(tensor, name)(argument)
        assert dims is not None
        dims = tuple(dims[i] for i in argument) if name == "permute" else regroup(dims, argument)
        if dims is None:  # time or batch would be cut up
            return
        assert sizes(dims) == tuple(tensor.shape)
        np.testing.assert_array_equal(places(dims, features), tensor.numpy())


@given(st.tuples(*[st.integers(1, 4)] * 3))
def test_flattening_and_back_is_where_one_began(shape):
    dims = (TIME, BATCH, *of_features(shape))
    for between in ([6, *shape], [3, 2, prod(shape)], [3, -1], [6 * prod(shape)]):
        wanted = [6 * prod(shape) // 3 if n == -1 else n for n in between]
        middle = regroup(dims, wanted)
        assert middle is not None
        assert regroup(middle, sizes(dims)) == dims


def test_time_and_batch_are_not_cut_up():
    dims = (TIME, BATCH, *of_features((4,)))
    assert regroup(dims, [2, 3, 4]) is None
    assert regroup(dims, [12, 2]) is not None  # features are
    assert regroup((TIME,), [3, 1]) == (TIME, ())


def test_single_steps_and_samples_keep_their_place():
    one, single = (Axis("T", 1),), (Axis("N", 1),)
    dims = (one, BATCH, *of_features((1, 5)))
    assert regroup(dims, [2, 1, 5]) == ((*one, *BATCH), (), *of_features((5,)))
    assert regroup(((*TIME, *single), *of_features((5,))), [3, 1, 5]) == (TIME, single, *of_features((5,)))


def test_neighbors_merge_and_others_do_not():
    assert merged([Axis("F", 2, 6), Axis("F", 1, 3), Axis("F", 6, 1)]) == (Axis("F", 12, 1),)
    assert merged([Axis("F", 6, 1), Axis("F", 2, 6)]) == (Axis("F", 6, 1), Axis("F", 2, 6))
    assert flat((TIME, *of_features((4,)))) is None


def test_tensors_of_the_same_places_join_even_if_one_is_the_same_at_every_step():
    with_time, without = (TIME, BATCH, *of_features((4,))), (BATCH, *of_features((4,)))
    assert join(with_time, without) == join(without, with_time) == with_time
    assert join(with_time, ((), *without)) == with_time
    assert join(with_time, (TIME, BATCH, ())) is None
    assert join(without, (BATCH, *of_features((5,)))) is None
