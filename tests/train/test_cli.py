"""The command line: what it prints, and how it says no."""

import json
import sys
from pathlib import Path

import pytest

import mfp_neurons
from mfp_neurons.cli import main
from mfp_neurons.train.config import shipped

from .conftest import SMALL

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


def test_train_evaluate_and_report_follow_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits-mfp", "--quiet", "--out", str(tmp_path), *SETS]) == 0
    trained = capsys.readouterr().out
    best = tmp_path / "best.safetensors"
    assert f"checkpoint           {best}" in trained
    assert main(["evaluate", str(best)]) == 0
    evaluated = capsys.readouterr().out
    accuracy = json.loads((tmp_path / "result.json").read_text())["test_accuracy"]
    assert f"{accuracy:.2f} %" in trained
    assert f"test accuracy {accuracy:.2f} % over 364 samples" in evaluated
    assert main(["report", str(best), "--samples", "5"]) == 0
    assert "synaptic operations" in capsys.readouterr().out
    assert main(["report", str(best), "--samples", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == 5


def test_resuming_from_the_command_line_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits-mfp", "--quiet", "--out", str(tmp_path), *SETS]
    assert main(words) == 0
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "no-such-config"], "shipped: digits-lif"),
        (["train", "digits-mfp", "--set", "training.epochs=0"], "training.epochs = 0 is not accepted"),
        (["train", "digits-mfp", "--set", "epochs"], "KEY=VALUE"),
        (["evaluate", "gone.safetensors"], "no such file"),
        (["report", __file__], "is no mfp-neurons checkpoint"),
        (["train", "digits-mfp", "--out", __file__], "File exists"),
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
