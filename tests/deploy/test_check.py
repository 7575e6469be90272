"""``check`` accepts every network that is one, and says of the others what is wrong where."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons.deploy import InvalidNetworkError, interpret
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import (
    Concat,
    CurrentPool,
    Currents,
    Feedback,
    Gather,
    Graph,
    Input,
    MatMul,
    Neurons,
    Ones,
    Pool,
    Product,
    Scores,
    Sum,
    Synapse,
    TimePool,
    Window,
    current_bound,
    current_range,
    potential_bound,
    score_bound,
    synapse_bound,
    synapses,
)
from tests.deploy.graphs import Case, cases, potentials, readout


def network() -> Graph:
    """One of every operation, on a map [2, 4, 4]: the ground that the tests below dig at."""
    codes = np.ones((2, 2, 3, 3), np.int8)
    pool = CurrentPool("max", Window((2, 2), (2, 2)), (2, 2, 2))
    first = Synapse(0, codes, 1, Window((3, 3), padding=(1, 1)), (2, 4, 4), 1, pool, np.ones(2, np.int64))
    linear = Synapse(4, np.zeros((3, 4, 2, 2), np.int8), 8, Window((2, 2)), (3, 1, 1))
    floats = np.zeros(2)
    return Graph(
        Input((2, 4, 4), (2, 4, 4), 255),
        (
            Neurons("fire", (first,), int64(1, 3, 2), int64(3, 2), (2, 2, 2), floats, floats),
            Pool("pool", 1, "sum", Window((2, 2), (1, 1), (1, 1)), (2, 2, 2), 4),
            Sum("sum", (1, 2), (1, 2), (2, 2, 2), 9),
            Concat("concat", (1, 3), (1, 2), (4, 2, 2), 18),
            Scores(
                "scores", (linear,), np.zeros((1, 3), np.int64), (3, 1, 1), (3,), 0.5, np.zeros(3), "mean", 4
            ),
        ),
        5,
    )


FIRE, POOL, SUM, CONCAT, SCORES = range(5)


def of(index: int, **fields: Any) -> Graph:
    """The network with fields of one operation changed."""
    graph = network()
    ops = list(graph.ops)
    ops[index] = replace(ops[index], **fields)
    return replace(graph, ops=tuple(ops))


def with_synapse(index: int = FIRE, **fields: Any) -> Graph:
    op = network().ops[index]
    return of(index, synapses=(replace(op.synapses[0], **fields),))


def with_window(index: int = FIRE, **fields: Any) -> Graph:
    op = network().ops[index]
    if isinstance(op, Pool):
        return of(index, window=replace(op.window, **fields))
    return with_synapse(index, window=replace(op.synapses[0].window, **fields))


def with_pool(**fields: Any) -> Graph:
    return with_synapse(pool=replace(network().ops[FIRE].synapses[0].pool, **fields))


def with_input(**fields: Any) -> Graph:
    graph = network()
    return replace(graph, input=replace(graph.input, **fields))


def with_ops(change: Callable[[tuple], Any]) -> Graph:
    graph = network()
    return replace(graph, ops=change(graph.ops))


def int64(*shape: int, value: int = 1) -> np.ndarray:
    return np.full(shape, value, np.int64)


REFUSED: dict[str, Graph] = {
    # the network
    "must be a Graph": None,  # type: ignore[dict-item]
    "network: steps must be an integer from 1 to 2**16, got 0": replace(network(), steps=0),
    "network: steps must be an integer from 1 to 2**16, got 65537": replace(network(), steps=2**16 + 1),
    "network: steps .* got True": replace(network(), steps=True),
    "network: steps .* got 5.0": replace(network(), steps=5.0),  # type: ignore[arg-type]
    "network: steps .* got an integer of 20000 bits": replace(network(), steps=2**19999),
    "network: ops must be a tuple of 1 to 4096, got ()": with_ops(lambda ops: ()),
    "network: ops .* got a list of 5": with_ops(list),
    "network: ops .* got a tuple of 4097": with_ops(lambda ops: ops[1:2] * 4096 + ops[-1:]),
    "operation 1: type must be Scores at the end, and only there, got 'Neurons'": with_ops(
        lambda ops: ops[-1:] + ops
    ),
    "operation 3: type must be Scores at the end, .* got 'Concat'": with_ops(lambda ops: ops[:-1]),
    "operation 1: type must be Neurons, Currents, Pool.* got 'NoneType'": with_ops(
        lambda ops: (ops[0], None, *ops[2:])
    ),
    # the input
    "network: input": replace(network(), input=None),  # type: ignore[arg-type]
    "input: shape .* got (2, 4)": with_input(shape=(2, 4)),
    "input: shape .* got (0, 4, 4)": with_input(shape=(0, 4, 4)),
    "input: shape .* got (-2, -4, 4)": with_input(shape=(-2, -4, 4)),
    "input: shape .* at most 2**26 numbers in all": with_input(shape=(2, 2**13, 2**13)),
    "input: features must be of 32 elements": with_input(features=(2, 4)),
    "input: features .* got 'abc'": with_input(features="abc"),
    "input: features must be a tuple of at most 16": with_input(features=(1,) * 17),
    "input: top must be an integer from 1 to 2**15, got 32769": with_input(top=2**15 + 1),
    "input: top must be an integer from 1 to 2**15, got 0": with_input(top=0),
    "input: static": with_input(static=1),
    # names
    "operation 0 (Neurons): name .* got 7": of(FIRE, name=7),
    "operation 0 (Neurons): name .* printable": of(FIRE, name="a\nb"),
    "operation 0 (Neurons): name .* 1000": of(FIRE, name="a" * 1001),
    "operation 0 (Neurons): name .* got '\\ud800'": of(FIRE, name="\ud800"),
    # synapses
    "operation 0 (Neurons 'fire'): synapses": of(FIRE, synapses=()),
    "synapse 0: type": of(FIRE, synapses=(None,)),
    "synapse 0: source must be an integer from 0 to 0, got 1": with_synapse(source=1),
    "synapse 0: source must be an integer from 0 to 0, got -1": with_synapse(source=-1),
    "synapse 0: shape must be (2, 2, 2), as": of(FIRE, synapses=(with_synapse(pool=None).ops[0].synapses)),
    "synapse 0: groups must be an integer from 1 to 2, got 0": with_synapse(groups=0),
    "synapse 0: groups must be a divisor of 4 channels in and 3 out": with_synapse(SCORES, groups=2),
    "codes must be int8 [2, 2, 3, 3], got int64": with_synapse(codes=int64(2, 2, 3, 3)),
    "codes must be int8 [2, 2, 3, 3], got int8 [2, 1, 3, 3]": with_synapse(
        codes=np.ones((2, 1, 3, 3), np.int8)
    ),
    "codes must be .* got [1]": with_synapse(codes=[1]),
    "bits must be 1, 1.58 or 2 to 8, got 9": with_synapse(bits=9),
    "bits .* got nan": with_synapse(bits=float("nan")),
    "bits .* got True": with_synapse(bits=True),
    "codes of 1 bit must be +1 or -1, got 0": with_synapse(codes=np.zeros((2, 2, 3, 3), np.int8)),
    "codes of 1.58 bits must be from -1 to 1, got 2": with_synapse(
        codes=np.full((2, 2, 3, 3), 2, np.int8), bits=1.58
    ),
    "codes of 3 bits must be from -4 to 3, got 4": with_synapse(
        codes=np.full((2, 2, 3, 3), 4, np.int8), bits=3
    ),
    "codes of 3 bits must be from -4 to 3, got -5": with_synapse(
        codes=np.full((2, 2, 3, 3), -5, np.int8), bits=3
    ),
    "factor must be int64 [2], got int64 [3]": with_synapse(factor=int64(3)),
    "factor must be int64 [2], got int32": with_synapse(factor=np.ones(2, np.int32)),
    "factor must be from -(2**31 - 1) to 2**31 - 1": with_synapse(factor=int64(2, value=-(2**31))),
    # windows
    "window must be a Window": with_synapse(window=None),
    "window.size .* got (0, 3)": with_window(size=(0, 3)),
    "window.size .* got (3, 3, 3)": with_window(size=(3, 3, 3)),
    "window.stride .* got (0, 1)": with_window(stride=(0, 1)),
    "window.padding .* got (-1, 1)": with_window(padding=(-1, 1)),
    "window.dilation .* got (1, 65537)": with_window(dilation=(1, 65537)),
    "window.padding (columns) must be an integer from 0 to 2, got 3": with_window(padding=(1, 3)),
    "shape (rows) must be such that the last window begins before 4": with_window(stride=(2, 1)),
    "window.size must be such that the padded map has at most": with_window(dilation=(2**14, 2**14)),
    "window (rows) must be one that all 1 see": of(
        POOL, kind="max", top=1, window=Window((2, 2), (1, 1), (1, 1), (4, 1))
    ),
    # pools of currents
    "synapse 0, pool: type": with_synapse(pool="max"),
    "synapse 0, pool: kind must be 'max' or 'sum', got 'mean'": with_pool(kind="mean"),
    "synapse 0, pool: shape must be of 2 channels": with_pool(shape=(1, 2, 2)),
    "synapse 0, pool: shape (rows)": with_pool(shape=(2, 3, 2)),
    # neurons
    "taps must be int64 [1 or T, K, 1 or C], got int64 [3]": of(FIRE, taps=int64(3)),
    "taps .* got int64 [1, 0, 1]": of(FIRE, taps=int64(1, 0, 1)),
    "taps .* got float64": of(FIRE, taps=np.ones((1, 3, 2))),
    "taps must be int64 [1 or T, K, 1 or 2], got int64 [1, 3, 3]": of(FIRE, taps=int64(1, 3, 3)),
    "taps must be int64 [5, K, 1] or": of(FIRE, taps=int64(4, 3, 1), thresholds=int64(4, 2)),
    "taps must be int64 [5, K, 1] or .* got int64 [5, 3, 2]": of(
        FIRE, taps=int64(5, 3, 2), thresholds=int64(5, 2)
    ),
    "order must be an integer from 1 to 5, got 6": of(FIRE, taps=int64(5, 6, 1), thresholds=int64(5, 2)),
    "order must be an integer from 1 to 2**16, got 65537": of(FIRE, taps=int64(1, 65537, 1)),
    "taps must be from .* got 4611686018427387904": of(FIRE, taps=int64(1, 3, 2, value=2**62)),
    "taps must be from .* got -9223372036854775808": of(FIRE, taps=int64(1, 3, 2, value=-(2**63))),
    "thresholds must be int64 [R, 2], got int64 [3, 3]": of(FIRE, thresholds=int64(3, 3)),
    "rows of thresholds must be an integer from 1 to 3, got 4": of(FIRE, thresholds=int64(4, 2)),
    "rows of thresholds must be an integer from 5 to 5, got 3": of(FIRE, taps=int64(5, 3, 1)),
    "rows of thresholds must be a multiple of the 4 sums of own spikes, got 3": of(
        FIRE, feedback=Feedback("table", int64(3, 1))
    ),
    "feedback must be a Feedback or None, got 'sum'": of(FIRE, feedback="sum"),
    "feedback: kind must be 'sum', 'table' or 'age', got 'zero'": of(FIRE, feedback=Feedback("zero")),  # type: ignore[arg-type]
    "feedback: kind must be None of a matrix kernel": of(
        FIRE, taps=int64(5, 3, 1), thresholds=int64(5, 2), feedback=Feedback("age")
    ),
    "feedback: taps must be None of 'age', got int64": of(FIRE, feedback=Feedback("age", int64(2, 1))),
    "feedback: order of the neurons must be 2 or more": of(
        FIRE, taps=int64(1, 1, 2), thresholds=int64(1, 2), feedback=Feedback("age")
    ),
    "feedback: taps must be int64 [R, 1 or C], got None": of(FIRE, feedback=Feedback("sum")),
    "feedback: taps must be int64 [R, 1 or 2], got int64 [2, 3]": of(
        FIRE, feedback=Feedback("sum", int64(2, 3))
    ),
    "feedback: taps must be from .* got 4611686018427387904": of(
        FIRE, feedback=Feedback("sum", int64(2, 1, value=2**62))
    ),
    "feedback: steps of own spikes must be an integer from 1 to 2**16": of(
        FIRE, feedback=Feedback("sum", int64(2**16 + 1, 1))
    ),
    "feedback: taps must be int64 [R, 1] of 'table', got int64 [2, 2]": of(
        FIRE, feedback=Feedback("table", int64(2, 2))
    ),
    "feedback: taps must be from -255 to 255, got 256": of(
        FIRE, feedback=Feedback("table", int64(2, 1, value=256))
    ),
    "feedback: shift must be an integer from 0 to 61, got 62": of(
        FIRE, feedback=Feedback("sum", int64(1, 1), 62)
    ),
    "feedback: shift must be an integer from 0 to 0, got 1": of(FIRE, feedback=Feedback("age", None, 1)),
    "feedback: sizes of taps, added up must be an integer from 0 to 255, got 300": of(
        FIRE, feedback=Feedback("table", int64(2, 1, value=150))
    ),
    "potentials must be always below 2**62, got": of(
        FIRE, feedback=Feedback("sum", int64(2, 1, value=2**61))
    ),
    "thresholds must be from -2**62 to 2**62": of(FIRE, thresholds=int64(3, 2, value=2**62 + 1)),
    "thresholds must .* got -9223372036854775808": of(FIRE, thresholds=int64(3, 2, value=-(2**63))),
    "unit must be float64 [2]": of(FIRE, unit=np.zeros(3)),
    "unit must be finite and >= 0": of(FIRE, unit=np.array([0, np.nan])),
    "error must be finite and >= 0": of(FIRE, error=np.array([-1.0, 0])),
    "accumulated numbers must be always below": of(
        FIRE,
        synapses=(
            replace(
                network().ops[FIRE].synapses[0],
                window=Window((3, 3), (1, 1), (1, 1), (1, 1)),
                pool=CurrentPool("sum", Window((2**12, 2**12), (1, 1), (2**11, 2**11)), (2, 2, 2)),
            ),
        ),
    ),
    "currents must be always below 2**62": of(
        FIRE,
        synapses=with_synapse(
            codes=np.full((2, 2, 3, 3), 127, np.int8),
            bits=8,
            pool=CurrentPool("sum", Window((60, 60), (1, 1), (50, 50)), (2, 2, 2)),
            factor=int64(2, value=2**31 - 1),
        )
        .ops[FIRE]
        .synapses
        * 2,
        taps=int64(1, 3, 1, value=0),
    ),
    "potentials must be always below 2**62": of(FIRE, taps=int64(1, 3, 2, value=2**61)),
    # pools, sums, concatenations
    "operation 1 (Pool 'pool'): source must be an integer from 0 to 1, got 2": of(POOL, source=2),
    "operation 1 .* kind": of(POOL, kind=None),
    "operation 1 .* shape must be of 2 channels": of(POOL, shape=(3, 2, 2)),
    "operation 1 .* top must be 4": of(POOL, top=5),
    "operation 1 .* top must be 1,": of(POOL, kind="max", window=Window((2, 2), (1, 1), (1, 1))),
    "operation 1 .* top must be an integer from 1 to 2**24 - 1": of(POOL, top=2**24),
    "operation 2 .* sources must be a tuple of 1": of(SUM, sources=(), weights=()),
    "operation 2 .* sources .* got (1, 3)": of(SUM, sources=(1, 3)),
    "operation 2 .* weights .* got (1, 0)": of(SUM, weights=(1, 0)),
    "operation 2 .* weights .* got (1, -2)": of(SUM, weights=(1, -2)),
    "operation 2 .* weights must be a tuple of 2": of(SUM, weights=(1,)),
    "operation 2 .* top must be 9": of(SUM, top=10),
    "operation 2 .* shape must be that of every source": of(SUM, shape=(2, 2, 1)),
    "operation 3 .* top must be 18": of(CONCAT, top=19),
    "operation 3 .* shape must be (4, 2, 2)": of(CONCAT, shape=(5, 2, 2)),
    "operation 3 .* sources must be of equal rows and columns": of(
        CONCAT, sources=(0, 3), weights=(1, 2), top=255
    ),
    # scores
    "operation 4 .* synapse 0: codes must be int8 [3, 4, 2, 2]": with_synapse(
        SCORES, codes=np.zeros((3, 2, 2, 2), np.int8)
    ),
    "offset must be int64 [R, 3]": of(SCORES, offset=int64(1, 2)),
    "offset must be from .* got 70368744177664": of(SCORES, offset=int64(1, 3, value=2**46)),
    "scores must be always below 2**46": of(
        SCORES,
        offset=int64(1, 3, value=2**46 - 1),
        synapses=(replace(network().ops[SCORES].synapses[0], codes=np.ones((3, 4, 2, 2), np.int8)),),
    ),
    "operation 4 .* features must be of 3": of(SCORES, features=(4,)),
    "operation 4 .* unit must be a float": of(SCORES, unit=1),
    "operation 4 .* unit must be finite": of(SCORES, unit=float("inf")),
    "operation 4 .* error must be float64 [3]": of(SCORES, error=np.zeros(3, np.float32)),
    "operation 4 .* reduce": of(SCORES, reduce="min"),
    "operation 4 .* last must be an integer from 1 to 5, got 6": of(SCORES, last=6),
}


def attention() -> Graph:
    """One of every operation on numbers, on a map [2, 4, 4], and two heads."""
    kernel = Synapse(0, np.ones((2, 2, 3, 3), np.int8), 1, Window((3, 3), padding=(1, 1)), (2, 4, 4))
    inside = replace(kernel, source=2, factor=int64(2, value=-3))
    back = replace(kernel, source=7, window=Window(), codes=np.ones((2, 2, 1, 1), np.int8))
    every = replace(kernel, source=7, window=Window((4, 4)), codes=np.ones((3, 2, 4, 4), np.int8))
    every = replace(every, shape=(3, 1, 1))
    floats = np.zeros(2)
    fire = Neurons(
        "fire", (replace(kernel, source=6),), int64(1, 3, 2), int64(3, 2), (2, 4, 4), floats, floats
    )
    head = Scores("a", (every,), int64(1, 3), (3, 1, 1), (3,), 0.5, np.zeros(3), "max", 3, 2)
    other = replace(head, name="b", offset=int64(2, 3), taps=int64(1, 4, 3), skip=0)
    return Graph(
        Input((2, 4, 4), (2, 4, 4), 7),
        (
            Currents("signed", (replace(kernel, factor=int64(2)),), int64(2, value=1), (2, 4, 4), 127, 3),
            Ones("ones", 1, (2, 4, 4)),
            Currents("sum", (replace(kernel, source=1), inside), int64(2, value=54), (2, 4, 4), 2286),
            Gather("turned", 3, np.arange(32).reshape(2, 4, 4).swapaxes(1, 2).ravel(), (2, 4, 4), 2286),
            Product("mask", (4, 2), (2, 4, 4), 2286),
            MatMul("weighed", (5, 0), (2, 4, 4), 4 * 2286 * 7),
            replace(fire, recurrent=(back,)),
            head,
            other,
        ),
        5,
        keys=("a", "b"),
    )


SIGNED, ONES, ADDED, TURNED, MASK, WEIGHED, RECURRENT, HEAD, OTHER = range(9)


def with_op(index: int, **fields: Any) -> Graph:
    """The network of numbers with fields of one operation changed."""
    graph = attention()
    ops = list(graph.ops)
    ops[index] = replace(ops[index], **fields)
    return replace(graph, ops=tuple(ops))


def with_recurrent(**fields: Any) -> Graph:
    return with_op(RECURRENT, recurrent=(replace(attention().ops[RECURRENT].recurrent[0], **fields),))


def at_two_rates() -> Graph:
    """Heads of which one is read out every fifth step."""
    graph = attention()
    pool = TimePool("pool", 7, 5, (2, 4, 4), 1)
    slow = replace(graph.ops[OTHER].synapses[0], source=8)
    heads = graph.ops[HEAD], replace(graph.ops[OTHER], synapses=(slow,), last=None)
    return replace(graph, ops=(*graph.ops[:HEAD], pool, *heads))


REFUSED_NUMBERS: dict[str, Graph] = {
    "operation 8: type must be Scores at the end, .* got 'Ones'": replace(
        attention(), ops=(*attention().ops[:OTHER], attention().ops[ONES])
    ),
    "network: steps that one of the scores takes must be one for all Scores": at_two_rates(),
    "network: keys must be (), or a tuple of 2 different names": replace(attention(), keys=("a",)),
    "network: keys .* got ('a', 'a')": replace(attention(), keys=("a", "a")),
    "network: keys .* got ('a', 1)": replace(attention(), keys=("a", 1)),  # type: ignore[arg-type]
    "network: keys .* got ('a', 'b\\n')": replace(attention(), keys=("a", "b\n")),
    "network: keys .* got ['a', 'b']": replace(attention(), keys=["a", "b"]),  # type: ignore[arg-type]
    # currents
    "operation 0 (Currents 'signed'): synapses": with_op(SIGNED, synapses=()),
    "operation 0 .* offset must be int64 [2], got int64 [1, 2]": with_op(SIGNED, offset=int64(1, 2)),
    "operation 0 .* offset must be from .* got 4611686018427387904": with_op(
        SIGNED, offset=int64(2, value=2**62)
    ),
    "operation 0 .* top must be an integer from 1 to 2**24 - 1": with_op(SIGNED, top=2**24),
    "operation 0 .* zero must be an integer from 0 to 127, got 128": with_op(SIGNED, zero=128),
    "operation 0 .* zero must be an integer from 0 to 127, got -1": with_op(SIGNED, zero=-1),
    "operation 0 .* numbers must be always from 0 to top, which is 127, got -1": with_op(
        SIGNED, offset=int64(2, value=-1)
    ),
    "operation 0 .* numbers must be always from 0 to top, which is 126, got 127": with_op(SIGNED, top=126),
    # together with the Ones the range is 18 times -3 to 124, and as large as that alone
    "operation 2 .* numbers must be always from 0 to top, which is 2286, got -1": with_op(
        ADDED, offset=int64(2, value=53)
    ),
    "operation 2 .* numbers must be always from 0 to top, which is 2285, got 2286": with_op(ADDED, top=2285),
    # numbers in other places
    "operation 1 (Ones 'ones'): source must be an integer from 0 to 1, got 2": with_op(ONES, source=2),
    "operation 1 .* shape must be (2, 4, 4), as its source's is": with_op(ONES, shape=(1, 4, 4)),
    "operation 3 (Gather 'turned'): places must be int64 [32], got int64 [31]": with_op(
        TURNED, places=int64(31)
    ),
    "operation 3 .* places must be from -1 to 31, got 32": with_op(TURNED, places=int64(32, value=32)),
    "operation 3 .* places must be from -1 to 31, got -2": with_op(TURNED, places=int64(32, value=-2)),
    "operation 3 .* fill must be an integer from 0": with_op(TURNED, fill=-1),
    "operation 3 .* top must be 2287": with_op(TURNED, fill=2287),
    # products
    "operation 4 (Product 'mask'): sources must be a tuple of 2": with_op(MASK, sources=(4, 2, 2)),
    "operation 4 .* sources .* got (4, 5)": with_op(MASK, sources=(4, 5)),
    "operation 4 .* shape must be (2, 4, 4), as follows": with_op(MASK, shape=(2, 4, 3)),
    "operation 4 .* top must be 2286": with_op(MASK, top=2285),
    "operation 5 (MatMul 'weighed'): top must be 64008": with_op(WEIGHED, top=64007),
    "operation 1 .* sources must be of shapes (C, H, K) and (C, K, W), not (2, 4, 3) and (2, 4, 4)": replace(
        attention(),
        ops=(
            Gather("", 0, int64(24), (2, 4, 3), 7),
            MatMul("", (1, 0), (2, 4, 4), 147),
            *attention().ops[HEAD:],
        ),
    ),
    "operation 5 .* top must be an integer from 1 to 2**24 - 1": with_op(
        WEIGHED, sources=(5, 5), top=4 * 2286**2
    ),
    # synapses from the layer itself
    "operation 6 (Neurons 'fire'): recurrent must be a tuple of 0": with_op(RECURRENT, recurrent=None),
    "operation 6 (Neurons 'fire'), recurrent synapse 0: type": with_op(RECURRENT, recurrent=(None,)),
    "recurrent synapse 0: source must be an integer from 7 to 7, got 6": with_recurrent(source=6),
    "recurrent synapse 0: source must be an integer from 7 to 7, got 8": with_recurrent(source=8),
    "recurrent synapse 0: shape must be (2, 4, 4), as": with_recurrent(shape=(2, 3, 4)),
    "recurrent synapse 0: codes must be int8": with_recurrent(codes=np.ones((2, 2, 1), np.int8)),
    "operation 6 .* synapse 0: source must be an integer from 0 to 6, got 7": with_op(
        RECURRENT, synapses=(replace(attention().ops[RECURRENT].synapses[0], source=7),)
    ),
    # heads
    "operation 8 (Scores 'b'), synapse 0: source must be an integer from 0 to 7, got 8": with_op(
        OTHER, synapses=(replace(attention().ops[OTHER].synapses[0], source=8),)
    ),
    "operation 7 .* skip must be an integer from 0 to 4, got 5": with_op(HEAD, skip=5),
    "operation 7 .* last must be an integer from 1 to 3, got 4": with_op(HEAD, last=4),
    "operation 7 .* rows of offset must be an integer from 1 to 1, got 2": with_op(HEAD, offset=int64(2, 3)),
    "operation 8 .* rows of offset must be an integer from 1 to 4, got 5": with_op(OTHER, offset=int64(5, 3)),
    "operation 8 .* taps must be int64 [1, K, 1 or C], got int64 [2, 4, 3]": with_op(
        OTHER, taps=int64(2, 4, 3)
    ),
    "operation 8 .* taps must be int64 [1, K, 1 or 3], got int64 [1, 4, 2]": with_op(
        OTHER, taps=int64(1, 4, 2)
    ),
    "operation 8 .* order must be an integer from 1 to 2**16": with_op(OTHER, taps=int64(1, 2**16 + 1, 1)),
    "operation 8 .* taps must be from .* got 4611686018427387904": with_op(
        OTHER, taps=int64(1, 4, 1, value=2**62)
    ),
    "operation 8 .* scores must be always below 2**46": with_op(OTHER, taps=int64(1, 4, 1, value=2**39)),
}


@pytest.mark.parametrize("words", [*REFUSED, *REFUSED_NUMBERS])
def test_what_is_wrong_is_said_where(words: str) -> None:
    check(network())
    check(attention())
    with pytest.raises(InvalidNetworkError, match=".*".join(map(re.escape, words.split(".*")))):
        check((REFUSED | REFUSED_NUMBERS)[words])


def test_a_score_of_the_largest_taps_is_as_large_as_its_bound() -> None:
    graph = attention()
    # three heads of 32 spikes, four taps, and the offset
    assert score_bound(graph, graph.ops[OTHER]) == [4 * 32 + 1] * 3


@given(case=cases())
def test_no_current_leaves_its_range_which_is_no_larger_than_its_bound(case: Case) -> None:
    graph = case.graph
    _, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    for op in graph.ops:
        if not isinstance(op, Neurons | Currents | Scores):
            continue
        low, high = current_range(graph, op.synapses)
        current = interpret.sum_currents(op.synapses, maps)
        assert (current.min(axis=(0, 1, 3, 4)) >= low).all()
        assert (current.max(axis=(0, 1, 3, 4)) <= high).all()
        bounds = current_bound(graph, op.synapses)
        assert all(-b <= one and two <= b for one, two, b in zip(low, high, bounds, strict=True))


def test_the_range_of_a_signed_map_is_that_of_its_numbers_and_is_reached() -> None:
    """Numbers 0 to 4 stand for -1 to 3; codes 1 and -2 make -7 to 5 of them, and padding adds nothing."""
    codes = np.array([[[[1, -2]]]], np.int8)
    plain = Synapse(1, codes, 2, Window((1, 2), padding=(0, 1)), (1, 1, 3))
    ones = replace(plain, source=2, factor=int64(1, value=-1))
    kept = replace(plain, source=0, window=Window(), codes=np.ones((1, 1, 1, 1), np.int8), shape=(1, 1, 2))
    currents = Currents("signed", (kept,), int64(1, value=0), (1, 1, 2), 4, 1)
    graph = Graph(Input((1, 1, 2), (2,), 4), (currents, Ones("ones", 1, (1, 1, 2))), 1)
    assert current_range(graph, (plain, ones)) == ([-7], [5])
    assert current_range(graph, (ones, plain)) == ([-7], [5])
    reached = []
    for pair in ([0, 4], [4, 0]):
        maps = [np.array(pair).reshape(1, 1, 1, 1, 2)]
        for op in graph.ops:
            maps.append(interpret.evaluate(op, maps, 1))
        reached.append(interpret.sum_currents((plain, ones), maps)[0, 0, 0, 0, 1])
    assert reached == [-7, 5]


@given(cases())
def test_no_number_exceeds_its_bound(case: Case) -> None:
    graph = case.graph
    check(graph)
    scores, maps = interpret.run(graph, case.levels.astype(np.int64), case.steps)
    for head, numbers in zip(graph.heads, scores, strict=True):
        assert (abs(numbers).max(axis=(0, 1, 3, 4)) <= score_bound(graph, head)).all()
    for index, numbers in enumerate(maps):
        assert numbers.min() >= 0
        assert numbers.max() <= graph.map_top(index)
        assert numbers.shape[2:] == graph.map_shape(index)
    for index, (op, steps) in enumerate(zip(graph.ops, case.own_steps[1:], strict=True), start=1):
        if isinstance(op, Neurons):
            potential = abs(potentials(op, maps, steps, maps[index])).max(axis=(0, 1, 3, 4))
            assert (potential <= potential_bound(graph, op)).all()
        for synapse in synapses(op):
            plain = replace(synapse, factor=None)
            acc = abs(interpret.accumulate(plain, maps[synapse.source])).max(axis=(0, 1, 3, 4))
            assert (acc <= synapse_bound(synapse, graph.map_top(synapse.source))).all()


def test_the_bound_of_a_synapse_is_reached() -> None:
    codes = np.array([[-128, 127, 3], [0, -1, 0]], np.int8).reshape(2, 3, 1, 1)
    synapse = Synapse(0, codes, 8, Window(), (2, 1, 1))
    reached = [
        abs(interpret.accumulate(synapse, np.array(x, np.int64).reshape(1, 1, 3, 1, 1))).ravel()
        for x in ([0, 9, 9], [9, 0, 0])
    ]
    assert synapse_bound(synapse, 9).tolist() == [258 * 9, 9]
    assert (reached[0] + reached[1]).tolist() == [258 * 9, 9]


@given(
    length=st.integers(1, 9),
    out=st.integers(1, 6),
    window=st.builds(
        Window,
        *(
            st.tuples(st.integers(low, high), st.just(low))
            for low, high in [(1, 6), (1, 4), (0, 9), (1, 5)]  # size, stride, padding, dilation
        ),
    ),
    seen=st.booleans(),
)
def test_a_window_is_accepted_exactly_if_it_can_be_read(
    length: int, out: int, window: Window, seen: bool
) -> None:
    size, stride, padding, dilation = (
        pair[0] for pair in (window.size, window.stride, window.padding, window.dilation)
    )
    places = [[i * stride - padding + k * dilation for k in range(size)] for i in range(out)]
    good = padding <= (size - 1) * dilation and places[-1][0] < length
    if seen:
        good = good and all(any(0 <= p < length for p in window) for window in places)
    top = 1 if seen else size * window.size[1]
    pool = Pool("pool", 0, "max" if seen else "sum", window, (1, out, 1), top)
    scores = readout(Synapse(1, np.ones((1, 1, out, 1), np.int8), 1, Window((out, 1)), (1, 1, 1)))
    graph = Graph(Input((1, length, 1), (length,), 1), (pool, scores), 1)
    try:
        check(graph)
        assert good
    except InvalidNetworkError:
        assert not good
