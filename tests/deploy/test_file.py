"""What was saved comes back; everything else is refused, with the reason and without cost."""

import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfp_neurons import convert, quantize_weights
from mfp_neurons.deploy import IntegerNetwork, InvalidNetworkError, lower
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.file import KEY, MAX_HEADER, from_bytes, to_bytes
from mfp_neurons.deploy.graph import Graph
from tests.deploy.graphs import BITS, Case, cases, dense, fires, readout, vectors
from tests.deploy.mutations import Arrays, parts, signed, signed_again, version_of
from tests.deploy.test_check import attention, network
from tests.deploy.test_feedback import fed_back

FILES = Path(__file__).parent / "old_files"


def read(data: bytes) -> Graph:
    """What becomes of a file when a network is loaded from it."""
    graph = from_bytes(data)
    check(graph)
    return graph


@given(cases())
def test_a_network_comes_back_as_it_was(case: Case) -> None:
    data = to_bytes(case.graph)
    again = from_bytes(data)
    assert_same(again, case.graph)
    assert to_bytes(again) == data


def assert_same(mine: Any, theirs: Any) -> None:
    assert type(mine) is type(theirs)
    if isinstance(theirs, np.ndarray):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    elif isinstance(theirs, tuple):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other)
    elif hasattr(theirs, "__dataclass_fields__"):
        for name in theirs.__dataclass_fields__:
            assert_same(getattr(mine, name), getattr(theirs, name))
    else:
        assert mine == theirs


def test_a_file_is_safetensors_that_others_can_read(tmp_path: Path) -> None:
    IntegerNetwork(network()).save(tmp_path / "net.safetensors")
    assert_same(IntegerNetwork.load(str(tmp_path / "net.safetensors")).graph, network())
    with safetensors.safe_open(tmp_path / "net.safetensors", "numpy") as opened:
        assert json.loads(opened.metadata()[KEY])["version"] == 4
        assert opened.get_tensor("numbers").dtype == np.uint8


OLD = {version: (FILES / f"version_{version}.safetensors").read_bytes() for version in (1, 2, 3)}


@pytest.mark.parametrize("version", OLD)
def test_files_of_earlier_releases_load_as_the_networks_that_they_were(version: int) -> None:
    graphs = {1: network(), 2: fed_back().graph, 3: attention()}
    assert version_of(OLD[version]) == version
    assert_same(read(OLD[version]), graphs[version])
    assert_same(read(to_bytes(graphs[version])), graphs[version])


def test_a_file_leaves_out_later_fields_that_hold_their_default() -> None:
    described, _ = parts(to_bytes(network()))
    assert "keys" not in described
    assert "recurrent" not in described["ops"][0]
    assert not {"skip", "taps"} & set(described["ops"][-1])


def large(bits: float, out: int = 256, inner: int = 4096) -> Graph:
    """One synapse of a million codes."""
    low, high = {1: (0, 2), 1.58: (-1, 2)}.get(bits, (-(2 ** int(bits - 1)), 2 ** int(bits - 1)))
    codes = np.random.default_rng(0).integers(low, high, (out, inner))
    return vectors(inner, readout(dense(0, 2 * codes - 1 if bits == 1 else codes, bits)), steps=4)


@pytest.mark.parametrize("bits", sorted(set(BITS)))
def test_a_code_takes_its_bits_in_the_file(bits: float) -> None:
    graph = large(bits)
    codes = graph.scores.synapses[0].codes.size
    assert len(to_bytes(graph)) <= codes * (2 if bits == 1.58 else bits) / 8 + 8000


@given(st.lists(st.integers(1 - 2**62, 2**62 - 1), min_size=1, max_size=40))
def test_whole_numbers_take_the_bits_that_they_differ_by(values: list[int]) -> None:
    layer = fires(dense(0, np.ones((len(values), 1))), [1], [values])
    graph = vectors(1, layer, readout(dense(1, np.ones((1, len(values))))), steps=1)
    data = to_bytes(graph)
    assert_same(from_bytes(data), graph)
    bits = max(1, (max(values) - min(values)).bit_length())
    _, arrays = parts(data)
    # the one tap and the one offset take a byte each
    assert arrays["numbers"].size - 2 <= -(-len(values) * bits // 8)


def test_a_convolutional_network_takes_a_28th_of_its_float_state() -> None:
    pytest.importorskip("spikingjelly", reason="the 'spikingjelly' extra is not installed")
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.model.parametric_lif_net import FashionMNISTNet

    net = FashionMNISTNet(channels=128, spiking_neuron=neuron.LIFNode)
    functional.set_step_mode(net, "m")
    floats = sum(4 * value.numel() for value in net.state_dict().values() if value.is_floating_point())
    net = quantize_weights(convert(net, order=4, kernel_bits="pow2"), bits=1).eval()
    lowered = lower(net, torch.zeros(4, 1, 1, 28, 28, dtype=torch.uint8))
    assert len(to_bytes(lowered.graph)) <= floats / 28


# what is refused


@given(st.binary(max_size=200))
def test_other_bytes_are_not_a_network(data: bytes) -> None:
    with pytest.raises(InvalidNetworkError, match="the file is not safetensors, or is cut off"):
        from_bytes(data)
    with pytest.raises(InvalidNetworkError, match="the file is not safetensors, or is cut off"):
        from_bytes(len(data).to_bytes(8, "little") + data)
    with pytest.raises(InvalidNetworkError):
        from_bytes(to_bytes(network()) + data + b"0")


def changed(change: Callable[[Any, Arrays], Any]) -> bytes:
    """The network's file of version 1 after a change of its JSON or arrays, with the right checksum."""
    described, arrays = parts(OLD[1])
    change(described, arrays)
    return signed(described, arrays)


def with_text(change: Callable[[bytes], bytes]) -> bytes:
    """The same after a change of the header's bytes."""
    data = OLD[1]
    end = 8 + int.from_bytes(data[:8], "little")
    header = change(data[8:end])
    return signed_again(len(header).to_bytes(8, "little") + header + data[end:])


def altered(change: Callable[[Any, Arrays], Any]) -> bytes:
    """The same of the network of numbers, of version 3."""
    described, arrays = parts(OLD[3])
    change(described, arrays)
    return signed(described, arrays, version=3)


def forms() -> Graph:
    """Neurons with taps of powers of two in groups, and thresholds that follow from two numbers."""
    taps = np.array([[2**j for j in range(8)], [-(2**j) for j in range(8)]]).T.repeat(32, 1)
    reached = taps.cumsum(axis=0)
    layer = fires(dense(0, np.ones((64, 8))), [1], (1000 * np.arange(64) - 3 * reached) >> 2)
    return vectors(8, replace(layer, taps=taps[None]), readout(dense(1, np.ones((3, 64)))), steps=9)


def rewritten(change: Callable[[Any, Arrays], Any]) -> bytes:
    """The same of these, of version 4."""
    described, arrays = parts(to_bytes(forms()))
    change(described, arrays)
    return signed(described, arrays, version=4)


def first(described: Any) -> Any:
    return described["ops"][0]


def synapse(described: Any) -> Any:
    return described["ops"][0]["synapses"][0]


CODES, TAPS = "ops.0.synapses.0.codes", "ops.0.taps"


def set_bits(described: Any, arrays: Arrays) -> None:
    arrays[CODES] = arrays[CODES] | np.uint8(0xF0)  # 36 codes: the last four bits of 40 belong to none


def both_signs(described: Any, arrays: Arrays) -> None:
    synapse(described)["codes"]["bits"] = 1.58
    arrays[CODES] = np.full(9, 255, np.uint8)


HOSTILE: dict[str, bytes] = {
    "has version 5; this release of mfp-neurons reads versions 1, 2, 3 and 4": signed({}, {}, version=5),
    "has version True": signed({}, {}, version=True),
    "has version 1.0": signed({}, {}, version=1.0),
    "has version None": signed({}, {}, version=None),
    "its checksum does not match": to_bytes(network()).replace(b"fire", b"fira"),
    "checksum does not match": with_text(
        lambda text: re.sub(rb"[0-9a-f]{64}", rb"\\\\ud800" * 64, text, count=1)  # no text that has bytes
    ),
    "has no 'mfp_neurons.network' in its metadata": with_text(
        lambda text: text.replace(b"mfp_neurons.network", b"mfp_neurons.netwerk")
    ),
    "describes its network in broken JSON": with_text(lambda text: text.replace(b"{\\", b"[\\")),
    "has NaN for a number": changed(lambda d, a: d.update(steps=float("nan"))),
    "has Infinity for a number": changed(lambda d, a: d.update(steps=float("inf"))),
    "is nested too deeply": with_text(
        lambda text: text.replace(b'\\"network\\": ', b'\\"network\\": ' + b"[" * 200_000, 1)
    ),
    "lacks the array 'ops.0.taps'": changed(lambda d, a: a.pop(TAPS)),
    "has arrays that are not part of the network, such as 'extra'": changed(
        lambda d, a: a.update(extra=np.zeros(3))
    ),
    "or uses it twice": changed(lambda d, a: first(d)["thresholds"].update(array=TAPS)),
    "lacks the array 7": changed(lambda d, a: first(d).update(taps={"array": 7})),
    "such as 'xxx": changed(lambda d, a: a.update({"x" * 10**6: a[TAPS]})),
    "lacks the array 'xxx": changed(lambda d, a: first(d)["taps"].update(array="x" * 10**6)),
    "has 'xxx": changed(lambda d, a: a.update({"x" * 10**6: np.zeros(1, np.float32)})),
    "of type F32, which no network has": changed(lambda d, a: a.update({TAPS: np.zeros(3, np.float32)})),
    "of shape [1, 3, 2, 1, 1], which": changed(lambda d, a: a.update({TAPS: a[TAPS][..., None, None]})),
    "of shape [0], which no network has": changed(lambda d, a: a.update({TAPS: np.zeros(0, np.int8)})),
    "of shape [], which no network has": changed(lambda d, a: a.update({TAPS: np.zeros((), np.int8)})),
    "has something of type 'os.system'": changed(lambda d, a: first(d).update(type="os.system")),
    "has something of type None": changed(lambda d, a: first(d).pop("type")),
    "has something of type ['Neurons']": changed(lambda d, a: first(d).update(type=["Neurons"])),
    "has Neurons with fields": changed(lambda d, a: first(d).pop("unit")),
    "has Window with fields": changed(lambda d, a: synapse(d)["window"].update(size_=1)),
    "the network must be a Graph": signed([], {}),
    "unit must be float64 [2], got float64 [67108864]": changed(
        lambda d, a: first(d)["unit"].update(times=2**26)
    ),
    "has 0.0 repeated 1000000000": changed(lambda d, a: first(d)["unit"].update(times=10**30)),
    "has 0 repeated 2 times": changed(lambda d, a: first(d)["unit"].update(repeat=0)),
    "unit must be finite and >= 0": changed(lambda d, a: first(d)["unit"].update(repeat=-1.0)),
    "has codes described by": changed(lambda d, a: synapse(d)["codes"].pop("bits")),
    "has codes of 9 bits; 1, 1.58": changed(lambda d, a: synapse(d)["codes"].update(bits=9)),
    "has codes of True bits": changed(lambda d, a: synapse(d)["codes"].update(bits=True)),
    "has codes or numbers of shape [2, -2, 3, 3]": changed(
        lambda d, a: synapse(d)["codes"].update(shape=[2, -2, 3, 3])
    ),
    "has codes or numbers of shape 4": changed(lambda d, a: synapse(d)["codes"].update(shape=4)),
    "for codes of 1 bits and shape [1048576, 1048576, 3, 3]": changed(
        lambda d, a: synapse(d)["codes"].update(shape=[2**20, 2**20, 3, 3])
    ),
    "has int8 [5] for codes of 1 bits": changed(lambda d, a: a.update({CODES: a[CODES].astype(np.int8)})),
    "has bits in 'ops.0.synapses.0.codes' that belong to no code": changed(set_bits),
    "belong to no code": changed(both_signs),
    "codes must be int8 [2, 2, 3, 3]": changed(lambda d, a: synapse(d)["codes"].update(shape=[2, 2, 9, 1])),
    "accumulated numbers must be always below": changed(
        lambda d, a: (
            d["input"].update(shape=[2, 1000, 1000], features=[2, 1000, 1000]),
            synapse(d)["pool"]["window"].update(size=[1000, 1000], padding=[999, 999]),
            synapse(d)["pool"].update(kind="sum"),
        )
    ),
    "places must be int64 [32], got int64 [31]": altered(
        lambda d, a: a.update({"ops.3.places": a["ops.3.places"][:31]})
    ),
    "places must be from -1 to 31, got 100": altered(
        lambda d, a: a.update({"ops.3.places": np.full(32, 100, np.int8)})
    ),
    "has Gather with fields": altered(lambda d, a: d["ops"][3].pop("fill")),
    "has Ones with fields ['name', 'shape', 'source', 'top']": altered(
        lambda d, a: d["ops"][1].update(top=1)
    ),
    "keys must be (), or a tuple of 2 different names": altered(lambda d, a: d.update(keys=["a"])),
    "recurrent synapse 0: source must be an integer from 7 to 7, got 0": altered(
        lambda d, a: d["ops"][6]["recurrent"][0].update(source=0)
    ),
    "offset must be int64 [R, 3]": altered(
        lambda d, a: a.update({"ops.8.offset": np.ones((1, 2, 3), np.int8)})
    ),
    "got (2, 67108864, 67108864)": changed(lambda d, a: d["input"].update(shape=[2, 2**26, 2**26])),
}


FORMS: dict[str, Callable[[Any, Arrays], Any]] = {
    "has numbers from": lambda d, a: first(d)["taps"]["sets"]["codes"].update(bits=65),
    "has numbers from 9223372036854775808 of": lambda d, a: slope(d).update(least=2**63),
    "has numbers from True of": lambda d, a: slope(d).update(least=True),
    "bytes of whole numbers, and its network more": lambda d, a: slope(d).update(numbers=[2**50]),
    "numbers of shape [0]": lambda d, a: slope(d).update(numbers=[0]),
    "of which": lambda d, a: a.update(numbers=np.append(a["numbers"], np.uint8(0))),
    "has whole numbers as int8": lambda d, a: a.update(numbers=a["numbers"].astype(np.int8)),
    "has a bit behind": lambda d, a: a["numbers"].__setitem__(-1, 255),
    "more taps than belong to its size": lambda d, a: first(d)["taps"].update(channels=2**40),
    "taps of groups of channels that are none": lambda d, a: first(d)["taps"].update(channels=65),
    "thresholds that follow from no taps": lambda d, a: first(d)["thresholds"].update(steps=9),
    "thresholds of no steps": lambda d, a: first(d)["thresholds"].update(steps=True),
    "thresholds of no shift": lambda d, a: first(d)["thresholds"].update(shift=63),
    "more thresholds than belong to its size": lambda d, a: first(d).update(
        thresholds={"type": "Rows", "values": {"numbers": [1, 1, 1], "least": 0, "bits": 1}, "steps": 2**40}
    ),
    "powers of two that are none": lambda d, a: first(d)["taps"]["sets"]["absent"].update(least=60),
    "powers of two of other columns": lambda d, a: first(d)["taps"]["sets"]["absent"].update(numbers=[4]),
    "something else where whole numbers belong": lambda d, a: first(d)["taps"].update(sets=[1, 2]),
    "has Line with fields": lambda d, a: first(d)["thresholds"].pop("shift"),
    "a palette without one of its places": lambda d, a: first(d).update(
        taps={
            "type": "Palette",
            "values": {"numbers": [1], "least": 5, "bits": 8},
            "places": {"numbers": [1, 8, 1], "least": 1, "bits": 8},
        }
    ),
}


def slope(described: Any) -> Any:
    return first(described)["thresholds"]["slope"]


def test_the_network_of_the_forms_has_them() -> None:
    data = to_bytes(forms())
    described, _ = parts(data)
    assert first(described)["taps"]["type"] == "Shared"
    assert first(described)["taps"]["sets"]["type"] == "Powers"
    assert first(described)["thresholds"]["type"] == "Line"
    assert_same(read(data), forms())


@pytest.mark.parametrize("words", FORMS)
def test_forms_that_say_no_numbers_are_refused(words: str) -> None:
    data = rewritten(FORMS[words])
    with pytest.raises(InvalidNetworkError) as caught:
        read(data)
    assert words in str(caught.value)
    assert peak(data) < 1_000_000 + 8 * len(data)


def test_places_of_an_operation_that_is_no_gather_before_are_refused() -> None:
    for number in (3, 0, 99, -1):
        with pytest.raises(InvalidNetworkError, match="places of operation"):
            read(
                altered(
                    lambda d, a, number=number: (a.pop("ops.3.places"), d["ops"][3].update(places=number))
                )
            )


def peak(data: bytes) -> int:
    """Bytes that reading takes beside the file, whether or not it is refused."""
    tracemalloc.start()
    try:
        read(data)
    except InvalidNetworkError:
        pass
    finally:
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return size


@pytest.mark.parametrize("words", HOSTILE)
def test_a_hostile_file_is_refused_with_the_reason_and_takes_no_memory(words: str, tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(HOSTILE[words])
    with pytest.raises(InvalidNetworkError) as caught:
        IntegerNetwork.load(tmp_path / "net")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert peak(HOSTILE[words]) < 1_000_000 + 8 * len(HOSTILE[words])


def test_no_file_a_folder_and_no_permission_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        IntegerNetwork.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        IntegerNetwork.load(tmp_path)


def test_saving_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        IntegerNetwork(network()).save(tmp_path / "net")
        assert [path.name for path in tmp_path.iterdir()] == ["net"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        IntegerNetwork(network()).save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "net"]


@pytest.mark.parametrize("bits", [1, 1.58, 8])
def test_reading_takes_a_small_multiple_of_the_file(bits: float) -> None:
    data = to_bytes(large(bits))
    # a bit becomes a code of one byte, 8 times; the rest is there while it is unpacked and checked
    assert peak(data) < 64 * len(data)


def test_checking_long_taps_takes_a_small_multiple_of_the_file() -> None:
    taps = np.random.default_rng(0).integers(-9, 9, (1, 2**14, 64))
    head = readout(dense(0, np.ones((64, 1))), reduce="none")
    data = to_bytes(vectors(1, replace(head, taps=taps), steps=4))
    assert peak(data) < 24 * len(data)


def test_a_large_header_is_not_read() -> None:
    bomb = b'{"__metadata__": {"a": "' + b"[" * MAX_HEADER + b'"}}'
    data = len(bomb).to_bytes(8, "little") + bomb
    with pytest.raises(InvalidNetworkError):
        from_bytes(data)
    assert peak(data) < 100_000


def test_a_header_of_small_things_takes_a_bounded_multiple() -> None:
    described, arrays = parts(to_bytes(network()))
    described["input"]["features"] = [[]] * (MAX_HEADER // 40)
    data = signed(described, arrays)
    assert peak(data) < 40 * len(data)


def test_the_signature_of_the_tests_is_that_of_the_file() -> None:
    data = to_bytes(network())
    assert signed_again(data) == data
    assert signed(*parts(data), version=4) == data
