"""The command line: what it prints, and how it says no."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import mfp_neurons
from mfp_neurons.cli import main
from mfp_neurons.train.checkpoint import read, save
from mfp_neurons.train.config import shipped

from .conftest import SMALL

HERE = str(Path(__file__).parent)
SETS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("demo", "train", "evaluate", "report", "deploy"))
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = capsys.readouterr().out.split()
    assert all(name in [w.strip(".,") for w in words] for name in shipped())


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"mfp-neurons {mfp_neurons.__version__}"


def test_train_resume_evaluate_and_report_follow_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "digits-mfp", "--quiet", "--out", str(tmp_path), *SETS]
    assert main(words) == 0
    trained = capsys.readouterr().out
    best = tmp_path / "best.safetensors"
    assert f"checkpoint           {best}" in trained
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out == trained
    assert main(["evaluate", str(best)]) == 0
    accuracy = json.loads((tmp_path / "result.json").read_text())["test_accuracy"]
    assert f"{accuracy:.2f} %" in trained
    assert f"test accuracy {accuracy:.2f} % over 364 samples" in capsys.readouterr().out
    assert main(["report", str(best), "--samples", "5"]) == 0
    assert "synaptic operations" in capsys.readouterr().out
    assert main(["report", str(best), "--samples", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "no-such-config"], "shipped: digits-lif"),
        (["train", "digits-mfp", "--set", "training.epochs=0"], "training.epochs = 0 is not accepted"),
        (["train", "digits-mfp", "--set", "epochs"], "KEY=VALUE"),
        (["train", "digits-mfp", "--set", "=3"], "KEY=VALUE"),
        (["train", "digits-mfp", "--set", "training.device=warp"], "'warp' is not usable here"),
        (["train", "digits-mfp", "--set", "training.shift=1"], "training.shift = 1"),
        (["train", "digits-lif", "--set", "training.fit_orders_bits=2"], "no memory-free neuron"),
        (["evaluate", "gone.safetensors"], "no such file"),
        (["report", __file__], "is no mfp-neurons checkpoint"),
        (["train", "digits-mfp", "--out", __file__], "File exists"),
        (["train", "digits-mfp", "--set", "training.epoch=3"], "did you mean training.epochs?"),
        (["train", f"{__file__}x.toml"], "no such file"),
        (["train", HERE], f"{HERE!r} is a folder: give a TOML file"),
        (["evaluate", HERE], f"{HERE!r} is a folder: give the best.safetensors in it"),
        (["report", HERE], f"{HERE!r} is a folder: give the best.safetensors in it"),
        (["deploy", HERE], f"{HERE!r} is a folder: give the best.safetensors in it"),
        (["deploy", __file__, "--layout", "cmake"], "--layout cmake is about C: give --c DIR too"),
        (["deploy", __file__, "--lanes", "8"], "--lanes 8 is about Verilog: give --verilog DIR too"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mfp-neurons: error: ")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[training\n", "net.toml' is not valid TOML"), (b"\xff\xfe", "is not valid TOML, which is UTF-8")],
)
def test_a_config_that_is_no_toml_is_named(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.toml").write_bytes(content)
    assert main(["train", str(tmp_path / "net.toml")]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "report", "deploy"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, facts: tensors.pop("readout.weight"), "Missing key(s) in state_dict"),
        (
            lambda tensors, facts: tensors.update(more=torch.ones(1)),
            'Unexpected key(s) in state_dict: "more"',
        ),
        (lambda tensors, facts: tensors.update({min(tensors): torch.ones(3, 3)}), "size mismatch for"),
        (
            lambda tensors, facts: facts["config"]["training"].update(of_a_later_version=3),
            "training.of_a_later_version is not a setting",
        ),
        (lambda tensors, facts: facts.pop("config"), "its header has no 'config'"),
        (lambda tensors, facts: facts.pop("readout_steps"), "its header has no 'readout_steps'"),
        (lambda tensors, facts: facts.update(readout_steps=9), "readout_steps = 9 is none of [1, 2, 4, 8]"),
        (lambda tensors, facts: facts.update(orders={"x": 1}), "'x' is no memory-free neuron of the model"),
    ],
)
def test_a_checkpoint_that_this_version_cannot_read_is_refused_with_both_versions(
    command: str,
    change: Any,
    words: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tensors, facts = read(trained / "best.safetensors")
    facts["version"] = "9.9"
    change(tensors, facts)
    save(tmp_path / "changed.safetensors", tensors, facts)
    assert main([command, str(tmp_path / "changed.safetensors")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.endswith(f"It was written by mfp-neurons 9.9, this is {mfp_neurons.__version__}\n")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("package", ["safetensors", "sklearn", "tqdm"])
def test_a_missing_package_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(package), *sys.meta_path])
    assert main(["train", "digits-mfp", "--quiet", "--out", str(tmp_path / "run"), *SETS]) == 2
    assert "mfp-neurons[train]" in capsys.readouterr().err


class Without:
    """Hides one package from the import system."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mfp_neurons.train.demo.run", interrupted)
    assert main(["demo"]) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_a_count_that_is_none_says_what_is_accepted(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "best.safetensors", f"--samples={number}"])
    assert f"argument --samples: {number}: give an integer of 1 or more" in capsys.readouterr().err
