"""mfp-neurons doctor: what runs here, and why the rest does not."""

import sys
from collections.abc import Callable
from unittest import mock

import pytest
import torch

from mfp_neurons import backends, cli


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What the command prints."""

    def printed() -> str:
        assert cli.main(["doctor"]) == 0
        return capsys.readouterr().out

    return printed


def test_every_backend_is_listed_with_its_state(doctor):
    text = doctor()
    assert text.startswith("backends\n")
    for name in backends.NAMES:
        assert f"  {name} " in text
    assert "takes 'cpu' for tensors on cpu" in text
    assert "  deploy        runs compiled" in text
    if not torch.cuda.is_available():
        assert "cupy          does not run: PyTorch finds no CUDA device" in text


def test_a_backend_that_cannot_run_says_why(doctor):
    reason = "there is no C++ compiler"
    backends.choose.cache_clear()
    with mock.patch("mfp_neurons.kernels.host.unavailable", return_value=reason):
        text = doctor()
    backends.choose.cache_clear()
    assert f"cpu           does not run: {reason}" in text
    assert "takes 'torch' for tensors on cpu" in text


def test_it_says_why_integer_networks_do_not_run_compiled(doctor):
    with mock.patch("mfp_neurons.deploy.host.compiled.unavailable", return_value="there is no C compiler"):
        assert "  deploy        does not run compiled: there is no C compiler" in doctor()
    with mock.patch.dict("sys.modules"):
        for name in [name for name in sys.modules if name.startswith("mfp_neurons.deploy")]:
            del sys.modules[name]
        sys.modules["numpy"] = None  # type: ignore[assignment]
        assert "mfp-neurons[deploy]" in doctor()


@pytest.mark.parametrize(
    ("version", "wheels", "words"),
    [
        ("13.6.0", ["cupy-cuda12x"], "13.6.0 (compiles the kernels again in every process; 14.2 and newer"),
        ("14.2.0", ["cupy-cuda12x", "cupy-cuda13x"], "excludes cupy-cuda13x, also installed"),
        ("14.2.0", ["cupy-cuda12x"], "cupy-cuda12x  14.2.0\n"),
    ],
)
def test_a_cupy_that_is_old_or_not_alone_is_remarked_on(doctor, version, wheels, words):
    with (
        mock.patch("mfp_neurons.kernels.device.cupy_wheels", return_value=wheels),
        mock.patch("importlib.metadata.version", return_value=version),
    ):
        assert words in doctor()
