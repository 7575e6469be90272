"""What one call times, holds and must move; the peers; the other process."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.machine import commit
from benchmarks.speed import calls, memory, peers
from benchmarks.speed.calls import FORWARD, TRAINING, Inputs, Neuron, Peer, Size, copy, probe, sample
from benchmarks.speed.contest import Contest
from benchmarks.speed.peers import BY_NAME, CHANNELS, PEERS, RESET_PEERS
from benchmarks.speed.timing import DeviceClock, Effort, HostClock, Skip
from benchmarks.speed.worker import Worker, old_folder

CPU = torch.device("cpu")
SMALL = Size(4, (3, CHANNELS), torch.float32, CPU)
ONCE = Effort(repeats=2, seconds=0.0, least=2, warm_up=1)


class Ticks(HostClock):
    """A clock that advances by one second a mark."""

    now = 0.0

    def mark(self) -> float:
        self.now += 1.0
        return self.now


# --- calls ------------------------------------------------------------------------------------------------


def test_forward_and_backward_are_timed_apart_and_together() -> None:
    inputs = Inputs((4, 3, 2), torch.float32, CPU)
    square = Neuron(lambda x: x * x)
    assert sample(square, inputs, TRAINING, Ticks())() == {"total": 2e3, "forward": 1e3, "backward": 1e3}
    assert sample(square, inputs, FORWARD, Ticks())() == {"total": 1e3}
    assert copy(inputs, Ticks())() == {"total": 1e3}


def test_a_call_resets_first_builds_a_graph_only_in_training_and_leaves_no_gradient() -> None:
    seen: list[Any] = []

    def call(x: Tensor) -> Tensor:
        y = x * 2
        seen.append(y.requires_grad)
        return y

    inputs = Inputs((4, 3), torch.float32, CPU)
    neuron = Neuron(call, lambda: seen.append("reset"))
    sample(neuron, inputs, FORWARD, Ticks())()
    sample(neuron, inputs, TRAINING, Ticks())()
    assert seen == ["reset", False, "reset", True]
    assert all(inputs.next()[0].grad is None for _ in range(10))


def test_inputs_take_turns_and_are_the_same_in_every_process() -> None:
    one, two = (Inputs((4, 5), torch.float16, CPU) for _ in range(2))
    turns = [one.next()[0] for _ in range(3)]
    assert len({x.data_ptr() for x in turns}) == 3
    assert all(torch.equal(x, two.next()[0]) for x in turns)
    grad = one.next()[1]
    wide = one.gradient(torch.empty(4, 5), grad)  # of spikes in float32
    assert torch.equal(wide, grad.float()) and wide.dtype == torch.float32
    assert one.gradient(grad, grad) is grad


@pytest.mark.parametrize("width", [2, 4])
def test_the_bytes_that_must_move_are_counted_from_what_goes_in_and_out(width: int) -> None:
    x, spikes, grad, gx = (width,) * 4
    assert calls.neuron_traffic(width, True).parts(10, training=True) == {
        "total": 10 * (x + spikes + x + grad + gx),
        "forward": 10 * (x + spikes),
        "backward": 10 * (x + grad + gx),
    }
    assert calls.neuron_traffic(width, False).parts(10, training=False) == {"total": 10 * (x + spikes)}
    assert calls.wide_spikes_traffic(width, False).forward == x + 4


def test_on_a_gpu_a_call_starts_behind_a_spin_and_is_read_after_all_has_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("mark")

        def elapsed_time(self, other: "Event") -> float:
            log.append("read")
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("spin"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: log.append("wait"))
    inputs = Inputs((4, 3), torch.float32, CPU)
    parts = sample(Neuron(lambda x: x * 2), inputs, TRAINING, DeviceClock())()
    assert parts == {"total": 4.0, "forward": 2.0, "backward": 2.0}
    assert log == ["spin", "mark", "mark", "mark", "wait", "read", "read"]


# --- memory -----------------------------------------------------------------------------------------------


def test_the_peak_counts_what_is_held_at_once_and_saved_storages_count_once() -> None:
    def step() -> None:
        a = torch.ones(100_000)
        b = a + 1  # two at once
        del a
        c = b + 1  # and two again
        del b, c

    assert memory.peak_bytes(step, CPU) == pytest.approx(800_000, rel=1e-3)
    layer = nn.Linear(100, 100, bias=False)
    x = torch.randn(50, 100, requires_grad=True)
    assert memory.saved_bytes(lambda: layer(x), layer.parameters()) == x.nbytes  # parameters are not counted
    assert memory.saved_bytes(lambda: x[:25] * x[25:]) == x.nbytes
    row = probe(BY_NAME["MFPNode"].build(SMALL), Inputs(SMALL.shape, SMALL.dtype, CPU))
    assert 4.0 <= row["saved_bytes_per_element"] < 6.0
    assert 0 < row["firing_rate"] < 1


# --- peers ------------------------------------------------------------------------------------------------


ELSEWHERE = (peers.WIDE_STATE,)
ANYWHERE = [p for p in PEERS if "compile" not in p.name and not p.worker and p.name not in ELSEWHERE]
HERE = [*ANYWHERE, *RESET_PEERS]


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.name)
def test_every_peer_gives_spikes_and_gradients(peer: Peer) -> None:
    inputs = Inputs(SMALL.shape, SMALL.dtype, CPU)
    neuron = peer.build(SMALL)
    spikes = neuron.call(inputs.next()[0])
    assert spikes.shape == SMALL.shape
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert sample(neuron, inputs, TRAINING, Ticks())()["backward"] == 1e3


def test_the_plain_recursion_is_our_neuron_and_the_same_when_compiled() -> None:
    x = torch.randn(SMALL.shape, requires_grad=True)
    grad = torch.randn(SMALL.shape)
    ours, theirs = BY_NAME["MFPNode"].build(SMALL).call(x), peers.recursion(peers.TAU)(x)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, grad)[0] for y in (ours, theirs)))
    compiled = BY_NAME["plain recursion, torch.compile"].build(SMALL)
    torch.testing.assert_close(compiled.call(x.detach()), theirs)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("PSN", Size(16_384, (32, 32), torch.float32, CPU)),
        ("StateLeaky", Size(16_384, (32, 32), torch.float32, CPU)),
        ("SlidingPSN", Size(2048, (1, 32), torch.float32, CPU)),
        ("plain recursion, torch.compile", Size(1024, (1, 32), torch.float32, CPU)),
        ("LIFNode, torch.compile", Size(64, (1, 32), torch.float32, CPU)),
        ("LIFNode, torch.compile", Size(4, (1, 32), torch.float16, CPU)),
        ("LIFNode, float32 state", SMALL),
    ],
)
def test_a_peer_says_at_which_size_it_is_not_tried(name: str, size: Size) -> None:
    with pytest.raises(Skip):
        BY_NAME[name].build(size)


def test_a_float32_state_gives_lifnode_of_half_precision_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_implementation", lambda size: "")  # SpikingJelly asks a GPU
    size = Size(4, (3, CHANNELS), torch.bfloat16, CPU)
    x = torch.randn(size.shape, dtype=size.dtype)
    spikes = BY_NAME["LIFNode, float32 state"].build(size).call(x)
    assert spikes.dtype == x.dtype
    torch.testing.assert_close(spikes.float(), peers.lif_node()(x.float()))


# --- rows -------------------------------------------------------------------------------------------------


def test_a_row_holds_ours_against_a_copy_and_reasons_against_the_absent() -> None:
    def absent(size: Size) -> Neuron:
        raise ImportError("no such package")

    entrants = [
        BY_NAME["MFPNode"],
        BY_NAME["LIFNode"],
        Peer("absent", "MFPNode", absent),
        BY_NAME["LIFNode 0.0.0.0.14, CuPy"],
    ]
    found = Contest("row", SMALL, TRAINING, entrants).run(ONCE, Worker(1))
    ours, lif, gone, old = found["entries"]
    assert set(ours["ms"]) == {"total", "forward", "backward"}
    assert ours["bytes"]["total"] == 20 * SMALL.elements
    rate = found["copy_bytes"] / found["copies"]["copy"]["median"]
    assert ours["copy_share"]["total"] == pytest.approx(
        ours["bytes"]["total"] / ours["ms"]["total"]["median"] / rate
    )
    assert lif["calls"] == 2
    assert "copy_share" not in lif
    assert gone["skipped"] == "ImportError: no such package"
    assert "GPU" in old["skipped"]


def test_the_fused_and_the_unfused_pair_agree() -> None:
    size = Size(4, (2, 3, 4, 4), torch.float32, CPU)
    x = torch.randn(size.shape)
    both = [peer.build(size).call(x) for peer in peers.norm_peers(TRAINING)[:2]]
    torch.testing.assert_close(*both)


# --- the other process ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    empty = tmp_path_factory.mktemp("empty")  # no other SpikingJelly over there
    started = Worker(1, lambda: empty)
    yield started
    started.close()


def test_a_worker_builds_times_probes_and_forgets(worker: Worker) -> None:
    call, note = worker.build(BY_NAME["MFPNode"], SMALL, TRAINING)
    assert note == ""
    here = probe(BY_NAME["MFPNode"].build(SMALL), Inputs(SMALL.shape, SMALL.dtype, CPU))
    assert worker.probe("MFPNode")["firing_rate"] == here["firing_rate"]
    assert set(call()) == {"total", "forward", "backward"}
    worker.forget()
    with pytest.raises(Skip, match="KeyError"):
        call()


def test_an_error_over_there_is_a_reason_here_and_the_worker_lives_on(worker: Worker) -> None:
    with pytest.raises(Skip, match="float32 and float16"):
        worker.build(BY_NAME["LIFNode 0.0.0.0.14, CuPy"], Size(4, (1, 32), torch.bfloat16, CPU), FORWARD)
    call, note = worker.build(BY_NAME["LIFNode"], SMALL, FORWARD)
    assert set(call()) == {"total"}
    assert note == "loop of torch operators"


def test_a_worker_that_ends_is_a_reason_and_starts_again(worker: Worker) -> None:
    worker.build(BY_NAME["MFPNode"], SMALL, FORWARD)
    assert worker.process is not None
    worker.process.kill()
    with pytest.raises(Skip, match="ended with status"):
        worker.probe("MFPNode")
    worker.forget()
    assert set(worker.build(BY_NAME["MFPNode"], SMALL, FORWARD)[0]()) == {"total"}


def test_the_old_spikingjelly_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MFP_OLD_SPIKINGJELLY", str(tmp_path))
    with pytest.raises(Skip, match="pip install"):
        old_folder()
    (tmp_path / "spikingjelly").mkdir()
    assert old_folder() == tmp_path


# --- facts ------------------------------------------------------------------------------------------------


def test_a_checkout_is_dirty_when_something_but_a_result_has_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words], check=True
        )

    assert commit(tmp_path) is None
    git("init", "-q")
    (tmp_path / "code").write_text("1")
    git("add", "code")
    git("commit", "-qm", "one")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "bench_cpu.json").write_text("{}")
    found = commit(tmp_path)
    assert found is not None
    assert not found["dirty"]
    (tmp_path / "code").write_text("2")
    assert commit(tmp_path) == {"id": found["id"], "dirty": True}
