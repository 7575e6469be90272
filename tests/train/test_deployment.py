"""From a checkpoint to integers and C, and what is said about it."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mfp_neurons import deploy
from mfp_neurons.cli import main
from mfp_neurons.train import deployment
from mfp_neurons.train.config import load
from mfp_neurons.train.data import Data, Split
from mfp_neurons.train.engine import BEST, Trainer
from tests.deploy.toolchain import run, tool

from .conftest import SMALL, write_fashion_mnist


def test_the_command_says_what_it_costs_whether_it_agrees_and_what_to_do_next(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(shutil.copy(trained / BEST, tmp_path))
    monkeypatch.setattr(deployment, "TIMED", 3)
    assert main(["deploy", str(checkpoint), "--c", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "network.hidden.2.neuron" in said
    assert "the same scores to the last bit (364 samples)" in said
    assert re.search(r"time for one sample, us +\| +[\d,]+ +\| +[\d,]+ +\| +[\d.]+x", said)
    named = re.findall(r"\S+mfp_\w+\.[ch]\b", said)
    assert {Path(file).name for file in named} == {"mfp_net.h", "mfp_net.c", "mfp_int.h", "mfp_int.c"}
    assert all(Path(file).is_file() for file in named)
    network = deploy.IntegerNetwork.load(checkpoint.with_name("integer.safetensors"))
    assert str(network) in said


def test_the_command_writes_verilog_and_says_how_to_synthesize_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(shutil.copy(trained / BEST, tmp_path))
    monkeypatch.setattr(deployment, "TIMED", 3)
    folder = tmp_path / "verilog"
    assert main(["deploy", str(checkpoint), "--verilog", str(folder), "--lanes", "4"]) == 0
    said = capsys.readouterr().out
    network = deploy.IntegerNetwork.load(checkpoint.with_name("integer.safetensors"))
    assert str(network) in said and "the same scores to the last bit" in said
    network.to_verilog(tmp_path / "expected", lanes=4)
    expected = {file.name: file.read_bytes() for file in (tmp_path / "expected").iterdir()}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    assert f"{sum(name.endswith('.hex') for name in expected)} memories" in said
    (command,) = re.findall(r"cd .* && (yosys .*)", said)
    # that all modules and memories are there; to synthesize them takes longer
    checked = command.replace("synth_ice40", "hierarchy -check").replace("yosys", f"{tool('yosys')} -q")
    run(["sh", "-c", checked], folder)


@pytest.mark.parametrize("lanes", ["0", "-3", "2.5", "many"])
def test_lanes_that_are_no_count_are_refused_with_what_came(
    lanes: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["deploy", str(trained / BEST), "--verilog", str(tmp_path), f"--lanes={lanes}"])
    assert stopped.value.code == 2
    assert f"{lanes}: give an integer of 1 or more" in capsys.readouterr().err


def test_the_integer_network_answers_as_the_checkpoint_does(trained: Path) -> None:
    deployed = deployment.lower_checkpoint(trained / BEST)
    samples = deployed.data.test.samples
    with torch.no_grad():
        expected = deployed.model.double()(deployed.data.sequence(samples).double()).numpy()
    found = deployed.network.run(deployed.data.integer_input(samples))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def trained_on_images(folder: Path, name: str, settings: dict[str, object]) -> Path:
    write_fashion_mnist(folder / "data", zipped=False)
    data = {"data.root": str(folder / "data"), "data.validation": 20, "training.epochs": 1}
    Trainer(load(name, SMALL | data | settings), folder / "run", bars=False).run()
    return folder / "run" / BEST


def test_an_image_that_is_shown_at_every_step_is_given_once(tmp_path: Path) -> None:
    settings = {"network.channels": [4, 4], "network.hidden": [8], "data.time_steps": 3}
    deployed = deployment.lower_checkpoint(trained_on_images(tmp_path, "fashion-mnist", settings))
    samples = deployed.data.test.samples[:4]
    image = deployed.data.integer_input(samples)
    assert image.shape == (4, 1, 28, 28)
    sequence = deployed.data.sequence(samples)
    np.testing.assert_array_equal(deployed.network.run(image), deployed.network.run(sequence))


def test_a_checkpoint_that_pools_over_time_is_evaluated_and_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled = {"network.time_pool": [1, 1, 4], "network.neuron.order": [1, 1, 7]}
    file = str(trained_on_images(tmp_path, "fashion-mnist-rows", pooled))
    assert main(["evaluate", file]) == 0
    monkeypatch.setattr(deployment, "TIMED", 3)
    assert main(["deploy", file, "--c", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"network.hidden.2.time_pool +4 steps joined", said)
    assert "the same scores to the last bit (30 samples)" in said
    assert "int mfp_net_step(" in (tmp_path / "c" / "mfp_net.h").read_text()
    deployed = deployment.lower_checkpoint(Path(file))
    # 6 pooled steps of the 10 neurons in front of the last layer, and its window
    assert deployed.network.graph.state_bits() == 10 * 6 + 10


def counted(largest_in_test: float, kind: torch.dtype = torch.uint8) -> Data:
    """Frames of event counts up to 4, two classes; one count of the test split is ``largest_in_test``."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 5, (60, 4, 1, 3, 3), generator=generator).to(kind)
    labels = torch.arange(60) % 2
    samples[labels == 1, :, :, 1] = 4
    train, rest, test = (Split(samples[i::3].clone(), labels[i::3]) for i in range(3))
    test.samples[0, 0, 0, 0, 0] = largest_in_test
    return Data(train, rest, test, classes=2, reading="frames", time_steps=4, scale=4.0)


def trained_on_counts(folder: Path, data: Data) -> Path:
    neuron = {"kind": "fir", "kernel_bits": "pow2", "order": 2, "decay": 0.5}
    settings = {"data.name": "tonic:Counts", "network.hidden": [8], "network.weight_bits": 1}
    Trainer(load("digits-mfp", SMALL | settings | {"network.neuron": neuron}), folder, data, bars=False).run()
    return folder / BEST


@pytest.mark.parametrize("largest", [5, 200])
def test_a_count_above_the_largest_in_training_counts_as_that_wherever_a_checkpoint_is_read(
    largest: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    above, alike = counted(largest), counted(4)
    torch.testing.assert_close(above.sequence(above.test.samples), alike.sequence(alike.test.samples))
    file = trained_on_counts(tmp_path, above)
    monkeypatch.setattr("mfp_neurons.train.data.load", lambda _: above)
    monkeypatch.setattr(deployment, "TIMED", 1)
    for command in ("evaluate", "report", "deploy"):
        assert main([command, str(file)]) == 0
    assert "the same answer to 20 of 20 test samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "words"),
    [(-1.5, "float32 from -1.5 to 4"), (0.5, "float32 from 0 to 4"), (-1, "from -1 to 4")],
)
def test_samples_that_are_no_counts_are_refused_in_one_line(
    number: float,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = counted(number, torch.float32)
    monkeypatch.setattr("mfp_neurons.train.data.load", lambda _: data)
    assert main(["deploy", str(trained_on_counts(tmp_path, data))]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "not normalized by mean and standard deviation" in err


def test_a_disagreement_would_be_an_error(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = deployment.lower_checkpoint(trained / BEST)
    silent = SimpleNamespace(step=lambda x: np.zeros((len(x), 10)))
    monkeypatch.setattr(deploy.IntegerNetwork, "stream", lambda self: silent)
    with pytest.raises(RuntimeError, match="step by step, the integer network gives other scores"):
        deployment.agreement(deployed)
    run = deploy.IntegerNetwork.run
    monkeypatch.setattr(deploy.IntegerNetwork, "run", lambda *args: run(*args) + 1)
    with pytest.raises(RuntimeError, match="event by event, the integer network gives other scores"):
        deployment.agreement(deployed)


def test_a_network_with_a_potential_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(load("digits-lif-2bit", SMALL), tmp_path, bars=False).run()
    assert main(["deploy", str(tmp_path / BEST)]) == 2
    err = capsys.readouterr().err
    assert "cannot be deployed" in err and "QuantizedMembraneLIF" in err
