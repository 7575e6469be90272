"""An sdist and a wheel build, install into an environment that has torch alone, and work there."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SOURCES = ["mfp_neurons", "benchmarks", "pyproject.toml", "README.md", "LICENSE"]

TRY_IT = """
import sys
import torch
import mfp_neurons
from mfp_neurons.history import Exponential

x = torch.randn(4, 2, 3, requires_grad=True)
mfp_neurons.functional.fire(x, Exponential(0.5)).sum().backward()
linear, neuron = torch.nn.Linear(3, 5), mfp_neurons.MFP(0.5)
net = mfp_neurons.quantize_weights(torch.nn.Sequential(linear, neuron, torch.nn.Linear(5, 2)))
assert net(x).shape == (4, 2, 2)
assert mfp_neurons.backends.unavailable("cpu") is None
assert not {"spikingjelly", "snntorch", "numpy"} & set(sys.modules)
print(mfp_neurons.__file__)
"""


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist."""
    tree = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree)
    return out


def required(name: str) -> Iterator[metadata.Distribution]:
    """A distribution and the Python packages it requires; CUDA's libraries are left out."""
    yield metadata.distribution(name)
    for requirement in map(Requirement, metadata.requires(name) or []):
        here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if here and not requirement.name.startswith(("cuda", "nvidia", "triton")):
            yield from required(requirement.name)


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from: links to torch, to what torch requires, and to the build backend."""
    folder = tmp_path_factory.mktemp("torch-alone")
    for distribution in [*required("torch"), *required("setuptools")]:
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            _link(folder, Path(str(distribution.locate_file(top))))
    site = Path(str(metadata.distribution("torch").locate_file("")))
    for shared in ("nvidia", "cuda"):  # folders that many packages fill with CUDA's libraries
        if (site / shared).is_dir():
            _link(folder, site / shared)
    return folder


def _link(folder: Path, target: Path) -> None:
    if not (folder / target.name).exists():
        (folder / target.name).symlink_to(target)


@pytest.mark.parametrize("kind", ["*.whl", pytest.param("*.tar.gz", marks=pytest.mark.slow)])
def test_it_installs_beside_torch_alone_and_runs(
    kind: str, dist: Path, torch_alone: Path, tmp_path: Path
) -> None:
    (artifact,) = dist.glob(kind)
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "torch-alone.pth").write_text(f"{torch_alone}\n")
    python = environment / "bin" / "python"
    offline = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, artifact)
    # -I: neither this folder nor PYTHONPATH is importable. torch itself warns that numpy is missing
    where = run(python, "-I", "-W", "error", "-W", "ignore:Failed to initialize NumPy", "-c", TRY_IT)
    assert Path(where.strip()).is_relative_to(environment)
    assert "demo" in run(environment / "bin" / "mfp-neurons", "--help")


def test_torch_is_all_that_it_requires() -> None:
    requirements = [Requirement(line) for line in metadata.requires("mfp-neurons") or []]
    assert [str(r) for r in requirements if r.marker is None] == ["torch>=2.6"]


def test_the_wheel_holds_the_package_its_type_marker_and_its_configs_and_the_sdist_what_a_build_needs(
    dist: Path,
) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    kinds = (".py", ".toml", ".h", ".c", ".cpp", ".cu", ".cuh", ".v", ".json", ".safetensors")
    files = [path for path in (ROOT / "mfp_neurons").rglob("*") if path.suffix in kinds]
    expected = {str(path.relative_to(ROOT)) for path in files} | {"mfp_neurons/py.typed"}
    assert expected == {name for name in names if name.startswith("mfp_neurons/")}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mfp_neurons"}
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "mfp_neurons/py.typed"} <= names
