"""What a user gives becomes levels, or an error that says what was wrong with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy.graph import Graph, Input, Synapse, Window
from mfp_neurons.deploy.inputs import read, read_events, read_step
from tests.deploy.graphs import fires, readout

STEP = (2, 3, 4)


def network(top: int, *, static: bool = False, last: int | None = None) -> Graph:
    """Takes steps of [2, 3, 4], adds all of it up."""
    synapse = Synapse(0, np.ones((1, 2, 3, 4), np.int8), 1, Window((3, 4)), (1, 1, 1))
    return Graph(Input(STEP, STEP, top, static), (readout(synapse, last=last),), 5)


IMAGES, EVENTS = network(255), network(1)


@given(
    levels=st.integers(0, 2**32).map(lambda s: np.random.default_rng(s).integers(0, 256, (5, 2, *STEP))),
    dtype=st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64]),
    as_torch=st.booleans(),
)
def test_levels_come_through_every_dtype(levels: Any, dtype: Any, as_torch: bool) -> None:
    x = (levels / 255).astype(dtype) if np.issubdtype(dtype, np.floating) else levels.astype(dtype)
    found, steps = read(IMAGES, torch.from_numpy(x) if as_torch else x)
    assert found.dtype == np.uint8
    assert steps == 5
    np.testing.assert_array_equal(found, levels)


@given(
    truth=st.integers(0, 2**32).map(lambda s: np.random.default_rng(s).random((5, 2, *STEP)) < 0.5),
    top=st.integers(1, 255) | st.sampled_from([256, 2**15]),
    as_torch=st.booleans(),
)
def test_booleans_are_what_they_are_to_the_model_0_and_1_the_smallest_level_and_the_largest(
    truth: Any, top: int, as_torch: bool
) -> None:
    levels, _ = read(network(top), torch.from_numpy(truth) if as_torch else truth)
    np.testing.assert_array_equal(levels, np.where(truth, top, 0))
    np.testing.assert_array_equal(levels, read(network(top), truth.astype(np.float32))[0])
    np.testing.assert_array_equal(levels[0], read_step(network(top), truth[0]))


@pytest.mark.parametrize("top", [1, 255, 256, 2**15])
def test_levels_have_one_byte_up_to_255_and_two_above(top: int) -> None:
    graph = network(top)
    x = np.full((5, 1, *STEP), top)
    for given_as in (x, x.astype(np.int32), torch.from_numpy(x), np.ones(x.shape)):
        levels, _ = read(graph, given_as)
        assert levels.dtype == graph.input.dtype == (np.uint8 if top <= 255 else np.uint16)
        assert (levels == top).all()
    with pytest.raises(ValueError, match=f"got {top + 1} to {top + 1}"):
        read(graph, x + 1)


def test_one_image_is_shown_at_every_step_of_the_example() -> None:
    found, steps = read(IMAGES, np.zeros((7, *STEP), np.uint8))
    assert found.shape == (1, 7, *STEP)
    assert steps == 5


def test_a_float_is_rounded_to_the_nearest_level() -> None:
    x = np.full((1, 1, *STEP), 0.4999 / 255)
    assert read(IMAGES, x)[0].max() == 0
    assert read(IMAGES, x * 1.01)[0].min() == 1


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16, torch.float16])
def test_events_may_be_of_any_dtype(dtype: torch.dtype) -> None:
    x = torch.randint(0, 2, (5, 1, *STEP))
    np.testing.assert_array_equal(read(EVENTS, x.to(dtype))[0], x.numpy())


@pytest.mark.parametrize(
    ("graph", "x", "error", "words"),
    [
        (IMAGES, [[1, 2]], TypeError, "x must be a NumPy array or a torch tensor, got list"),
        (IMAGES, np.zeros((1, *STEP), complex), TypeError, "real numbers, got dtype complex128"),
        (IMAGES, np.zeros(STEP), ValueError, r"\[T, N, 2, 3, 4\] or \[N, 2, 3, 4\], got shape \[2, 3, 4\]"),
        (IMAGES, np.zeros((1, 3, 2, 4)), ValueError, r"got shape \[1, 3, 2, 4\]"),
        (IMAGES, np.zeros((0, 1, *STEP)), ValueError, r"got shape \[0, 1, 2, 3, 4\]"),
        (IMAGES, np.full((1, *STEP), np.nan), ValueError, "NaN in 24 places"),
        (IMAGES, np.full((1, *STEP), 1.5), ValueError, r"floats must lie in \[0, 1\], got 1.5 to 1.5"),
        (IMAGES, np.full((1, *STEP), np.inf), ValueError, r"\[0, 1\], got inf"),
        (IMAGES, np.full((1, *STEP), 256), ValueError, "levels from 0 to 255, got 256 to 256"),
        (IMAGES, np.full((1, *STEP), -1), ValueError, "levels from 0 to 255, got -1 to -1"),
        (network(16), np.full((1, *STEP), 17, np.uint64), ValueError, "levels from 0 to 16, got 17 to 17"),
        (network(16), np.full((1, *STEP), -1, np.int8), ValueError, "levels from 0 to 16, got -1 to -1"),
        (IMAGES, np.full((1, *STEP), 2**63, np.uint64), ValueError, "got 9223372036854775808"),
        (IMAGES, np.full((1, *STEP), 1.01, np.float16), ValueError, r"\[0, 1\], got 1.00977 to 1.00977"),
        (IMAGES, np.full((1, *STEP), -0.1), ValueError, r"\[0, 1\], got -0.1"),
        (EVENTS, np.full((1, *STEP), np.inf), ValueError, "binary events, 0 or 1, got inf"),
        (EVENTS, np.full((1, *STEP), np.nan, np.float16), ValueError, "NaN in 24 places"),
        (IMAGES, torch.full((1, *STEP), torch.nan, dtype=torch.bfloat16), ValueError, "NaN in 24 places"),
        (
            IMAGES,
            torch.zeros((1, *STEP), dtype=torch.complex64),
            TypeError,
            "real numbers, got dtype complex64",
        ),
        (EVENTS, np.full((1, *STEP), 2), ValueError, r"events \(0 or 1\), got 2 to 2"),
        (EVENTS, np.full((1, *STEP), 0.5), ValueError, "binary events, 0 or 1, got 0.5"),
        (
            network(255, static=True),
            np.zeros((5, 1, *STEP)),
            ValueError,
            r"must be \[N, 2, 3, 4\], got shape",
        ),
        (EVENTS, np.zeros((2**16 + 1, 1, *STEP), bool), ValueError, "at most 65536 steps, got 65537; stream"),
        (network(255, last=4), np.zeros((3, 1, *STEP)), ValueError, "at least 4 steps"),
    ],
)
def test_a_wrong_input_is_refused_with_what_came_and_what_is_accepted(
    graph: Graph, x: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read(graph, x)


def test_a_step_of_a_stream_has_no_time() -> None:
    assert read_step(EVENTS, np.ones((3, *STEP))).shape == (3, *STEP)
    with pytest.raises(ValueError, match=r"one step \[N, 2, 3, 4\], got shape \[5, 3, 2, 3, 4\]"):
        read_step(EVENTS, np.ones((5, 3, *STEP)))


def test_addresses_are_places_in_a_step_row_major() -> None:
    x = np.random.default_rng(0).integers(0, 2, (5, *STEP))
    times, *places = np.nonzero(x)
    events, steps = read_events(EVENTS, times, torch.from_numpy(np.ravel_multi_index(places, STEP)))
    assert steps == 5
    found = np.zeros_like(x)
    found[events.time, events.channel, events.row, events.column] = events.level
    np.testing.assert_array_equal(found, x)


def test_events_may_go_on_past_the_steps_of_the_example() -> None:
    assert read_events(EVENTS, [11], [0])[1] == 12
    assert read_events(EVENTS, [], [])[1] == 5


@pytest.mark.parametrize(
    ("graph", "times", "addresses", "error", "words"),
    [
        (EVENTS, [0], [24], ValueError, "addresses must lie from 0 to 23, got 24"),
        (EVENTS, [-1], [0], ValueError, "times must lie from 0"),
        (EVENTS, [2**40], [0], ValueError, "times must lie from 0 to 65535"),
        (EVENTS, [0, 1], [0], ValueError, "one length, got 2 and 1"),
        (EVENTS, [1, 1], [3, 3], ValueError, "1 of 2 are there twice"),
        (EVENTS, [0.5], [3], TypeError, "times must be a 1-d integer array"),
        (IMAGES, [0], [0], ValueError, "levels from 0 to 255, not events"),
        (network(1, static=True), [0], [0], ValueError, "repeats one image itself"),
    ],
)
def test_wrong_events_are_refused(
    graph: Graph, times: Any, addresses: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_events(graph, times, addresses)


def test_a_matrix_kernel_fixes_the_number_of_steps() -> None:
    synapse = Synapse(0, np.ones((2, 1, 1, 1), np.int8), 1, Window(), STEP, groups=2)
    matrix = replace(fires(synapse, [1], [1, 1]), taps=np.tril(np.ones((3, 3), np.int64))[:, :, None])
    fixed = replace(network(1), ops=(matrix, *network(1).ops), steps=3)
    with pytest.raises(ValueError, match="T = 3 steps"):
        read(fixed, np.zeros((5, 1, *STEP)))
