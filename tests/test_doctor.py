"""mfp-neurons doctor: what runs here, and why the rest does not."""

import sys
from unittest import mock

import pytest
import torch

from mfp_neurons import backends, cli
from mfp_neurons._doctor import doctor


def test_every_backend_is_listed_with_its_state():
    text = doctor()
    for name in backends.NAMES:
        assert f"  {name} " in text
    assert "takes 'cpu' for tensors on cpu" in text
    if not torch.cuda.is_available():
        assert "cupy          does not run: PyTorch finds no CUDA device" in text


def test_a_backend_that_cannot_run_says_why():
    reason = "there is no C++ compiler"
    backends.choose.cache_clear()
    with mock.patch("mfp_neurons.kernels.host.unavailable", return_value=reason):
        text = doctor()
    backends.choose.cache_clear()
    assert f"cpu           does not run: {reason}" in text
    assert "takes 'torch' for tensors on cpu" in text


def test_it_says_whether_integer_networks_run_compiled():
    assert "  deploy        runs compiled" in doctor()
    with mock.patch("mfp_neurons.deploy.host.compiled.unavailable", return_value="there is no C compiler"):
        assert "  deploy        does not run compiled: there is no C compiler" in doctor()
    with mock.patch.dict("sys.modules"):
        for name in [name for name in sys.modules if name.startswith("mfp_neurons.deploy")]:
            del sys.modules[name]
        sys.modules["numpy"] = None  # type: ignore[assignment]
        assert "mfp-neurons[deploy]" in doctor()


def test_the_command_prints_it(capsys):
    assert cli.main(["doctor"]) == 0
    assert "backends" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "wheels", "words"),
    [
        ("13.6.0", ["cupy-cuda12x"], "13.6.0 (compiles the kernels again in every process; 14.2 and newer"),
        ("14.2.0", ["cupy-cuda12x", "cupy-cuda13x"], "excludes cupy-cuda13x, also installed"),
        ("14.2.0", ["cupy-cuda12x"], "cupy-cuda12x  14.2.0\n"),
    ],
)
def test_a_cupy_that_is_old_or_not_alone_is_remarked_on(version, wheels, words):
    with (
        mock.patch("mfp_neurons.kernels.device.cupy_wheels", return_value=wheels),
        mock.patch("importlib.metadata.version", return_value=version),
    ):
        assert words in doctor() + "\n"
