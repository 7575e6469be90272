"""Every public name has a docstring and an entry on the API pages."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

import mfp_neurons
from mfp_neurons import train

# what nobody calls by name: everything else in the package is public, unless it starts with an underscore
INTERNAL = {
    "mfp_neurons.architectures": "names for a config; docs/architectures.md",
    "mfp_neurons.backends": "neurons choose one; docs/kernels.md says which",
    "mfp_neurons.cli": "mfp-neurons",
    "mfp_neurons.kernels": "C++ and CUDA",
    "mfp_neurons.ops": "operators behind functional",
    "mfp_neurons.train.checkpoint": "files of mfp-neurons train",
    "mfp_neurons.train.datasets": "behind train.data",
    "mfp_neurons.train.demo": "mfp-neurons demo",
    "mfp_neurons.train.deployment": "mfp-neurons deploy",
    "mfp_neurons.train.distributed": "mfp-neurons train under torchrun; docs/howto/multi_gpu.md",
    "mfp_neurons.train.figures": "figure of mfp-neurons demo",
    "mfp_neurons.train.loggers": "behind training.tensorboard and training.wandb",
    "mfp_neurons.train.network": "networks that a config names",
    "mfp_neurons.train.tables": "tables of commands",
}


def modules() -> Iterator[str]:
    """The public modules: of the package, and of ``train``, which has no front door."""
    yield "mfp_neurons"
    for package in (mfp_neurons, train):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not found.name.rpartition(".")[2].startswith("_") and found.name != train.__name__:
                yield found.name


def public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    front = module is mfp_neurons
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (front or value.__module__ == module.__name__)
        and name != "Any"
    ]
    return sorted([*names, "MFPNode"] if front else names)


NAMES = [
    (module, name) for module in modules() if module not in INTERNAL for name in public(import_module(module))
]


@pytest.fixture(scope="session")
def entries(site: Path) -> set[str]:
    """The full names that the API pages describe."""
    return {
        str(tag["id"])
        for page in (site / "api").glob("*.html")
        for tag in BeautifulSoup(page.read_text(), "html.parser").select("dl.py > dt[id], dt > span[id]")
    }


def test_internal_modules_are_still_there() -> None:
    assert set(INTERNAL) <= set(modules())


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_has_a_docstring_of_its_own(module: str, name: str) -> None:
    thing = getattr(import_module(module), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__doc__ and not thing.__doc__.startswith(f"{name}("), (
            "a dataclass's signature says little"
        )


def test_every_public_name_has_an_entry(entries: set[str]) -> None:
    missing = []
    for module, name in NAMES:
        thing = getattr(import_module(module), name)
        paths = {
            f"{module}.{name}",
            f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}",
        }
        if getattr(mfp_neurons, name, None) is thing:
            paths.add(f"mfp_neurons.{name}")
        if not paths & entries:
            missing.append(f"{module}.{name}")
    assert not missing, "give these a place in docs/api/, or their module a reason in INTERNAL"
