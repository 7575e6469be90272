"""What the package promises as a whole: light imports, layers, public names that explain themselves."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata, resources
from pathlib import Path

import pytest

import mfp_neurons

PACKAGE = Path(mfp_neurons.__file__).parent

# Lowest first. A module may import from the layers below it; files in one folder may import each other.
LAYERS = [
    ["_checks", "_files"],
    ["_build", "_plot", "_reset", "_undisturbed"],
    ["kernels"],
    ["history", "norm", "surrogate", "quantize"],
    ["reference", "backends", "spec"],
    ["_operators"],
    ["ops", "norm_ops", "_serial", "_arguments"],
    ["functional"],
    ["neuron", "pooling", "baseline"],
    ["spikingjelly", "snntorch"],
    ["adapters"],
    ["_convert"],
    ["reporting"],
    ["orders"],
    ["deploy"],
    ["_doctor", "neurobench", "nir", "train"],
    ["zoo"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Who may import what besides the standard library, torch and the package, when imported or later.
ON_IMPORT = {
    "deploy": {"numpy"},
    "neurobench": {"neurobench"},
    "nir": {"nir", "numpy"},
    "snntorch": {"snntorch"},
    "spikingjelly": {"spikingjelly"},
}
_TRAIN = [
    "matplotlib",
    "numpy",
    "safetensors",
    "sklearn",
    "spikingjelly",
    "tensorboard",
    "tonic",
    "torchvision",
    "tqdm",
    "wandb",
]
LATER = {
    "_plot": {"matplotlib"},
    "deploy": {"safetensors"},
    "kernels": {"cupy"},
    "train": set(_TRAIN),
    "zoo": {"snntorch", "spikingjelly"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    """The top-level module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(absolute dotted name, whether it runs when the file is imported) for every import in a file."""
    folder = ["mfp_neurons", *path.relative_to(PACKAGE).parts[:-1]]

    def walk(node: ast.AST, now: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = folder[: len(folder) + 1 - child.level] if child.level else []
                parts = [*base, *([child.module] if child.module else [])]
                for alias in child.names:
                    yield ".".join([*parts, alias.name]), now
            elif isinstance(child, ast.Call) and _called(child) in ("require", "import_module"):
                yield from _named(child, folder)
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(child)
            yield from walk(child, now and not later)

    yield from walk(ast.parse(path.read_text()), True)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _named(call: ast.Call, folder: list[str]) -> Iterator[tuple[str, bool]]:
    """What ``require("module", ...)`` or ``import_module("module")`` brings, where it is written out."""
    if call.args and isinstance(call.args[0], ast.Constant):
        name = str(call.args[0].value)
        yield (".".join([*folder, name.lstrip(".")]) if name.startswith(".") else name), False


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below_it(path: Path) -> None:
    own = layer(path)
    if own == "__init__":
        pytest.skip("the front door re-exports from everywhere")
    assert own in RANK, f"{own} is new: give it a place in LAYERS"
    for name, _ in imports(path):
        root, *rest = name.split(".")
        if root != "mfp_neurons":
            continue
        target = rest[0] if rest and rest[0] in RANK else None
        if target is None:  # from the front door
            assert RANK[own] >= RANK["train"], f"{own} imports {name} through the package's front door"
        elif target != own:
            assert RANK[target] < RANK[own], f"{own} imports {name}, which is not below it"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_only_where_they_belong(path: Path) -> None:
    own = layer(path)
    for name, now in imports(path):
        root = name.split(".")[0]
        if root in ("torch", "mfp_neurons") or root in sys.stdlib_module_names:
            continue
        allowed = ON_IMPORT.get(own, set()) | (set() if now else LATER.get(own, set()))
        assert root in allowed, f"{own} imports {name} {'on import' if now else 'later'}"


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_imported_when() -> None:
    """One interpreter, step by step: each start of one takes seconds."""
    code = """
import json, sys, torch
def news(before=set()):
    now = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)
    added = sorted(now - before)
    before |= now
    print(json.dumps(added))
news()
import mfp_neurons; news()
mfp_neurons.zoo.list(); news()
import mfp_neurons.deploy.lowering.neurons; news()
mfp_neurons.MFPNode; news()
"""
    _, package, zoo, lowering, adapter = map(json.loads, fresh(code).splitlines())
    assert package == ["mfp_neurons"]
    assert not {"spikingjelly", "snntorch", "safetensors"} & set(zoo)
    assert not {"spikingjelly", "snntorch"} & set(lowering)
    assert "spikingjelly" in adapter and "snntorch" not in adapter


def test_a_missing_framework_is_an_import_error_that_names_the_extra() -> None:
    code = """
import sys
from importlib.abc import MetaPathFinder
class Hide(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("spikingjelly", "snntorch", "nir"):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Hide())
import mfp_neurons
for use in (
    "mfp_neurons.MFPNode", "import mfp_neurons.spikingjelly", "import mfp_neurons.snntorch", "mfp_neurons.nir"
):
    try:
        exec(use)
        print("nothing missing")
    except ImportError as error:
        print(error)
"""
    told = fresh(code).splitlines()
    extras = ("spikingjelly", "spikingjelly", "snntorch", "nir")
    for line, extra in zip(told, extras, strict=True):
        assert f"mfp-neurons[{extra}]" in line


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        mfp_neurons.nonsense  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    assert mfp_neurons.__version__ == metadata.version("mfp-neurons")


def test_type_information_configs_and_networks_are_in_the_package() -> None:
    root = resources.files("mfp_neurons")
    assert (root / "py.typed").is_file()
    for folder, suffix in (("train/configs", ".toml"), ("zoo/configs", ".toml"), ("zoo/networks", ".json")):
        assert any(entry.name.endswith(suffix) for entry in (root / folder).iterdir())


PUBLIC = {
    "mfp_neurons": [
        *("MFP", "MFPNode", "QuantizedMembraneLIF", "TimePool"),
        *("convert", "fit_orders", "late_taps", "quantize_weights", "report"),
    ],
    "mfp_neurons.adapters": ["describe_neuron"],
    "mfp_neurons.deploy": ["IntegerNetwork", "lower"],
    "mfp_neurons.functional": ["fire", "fire_chunk", "norm_fire", "norm_fire_chunk", "potential"],
    "mfp_neurons.history": ["Exponential", "FIR", "Matrix", "quantize_taps"],
    "mfp_neurons.neuron": ["HistoryKernel"],
    "mfp_neurons.norm": ["Norm"],
    "mfp_neurons.nir": ["NIRNetwork", "from_nir", "to_nir"],
    "mfp_neurons.quantize": ["codes", "materialize"],
    "mfp_neurons.snntorch": ["MFPLeaky", "MFPLeakyParallel"],
    "mfp_neurons.zoo": ["card", "list", "load"],
    "mfp_neurons.surrogate": ["ATan", "Erf", "PiecewiseQuadratic", "Rect", "Sigmoid", "SuperSpike"],
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_says_what_it_takes_gives_and_refuses(module: str, name: str) -> None:
    thing = getattr(import_module(module), name)
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()[0]) > 20, "no summary line"
    for other in re.findall(r"(?:as|see) :class:`(\w+)`", text):  # arguments explained there
        home = ".".join(thing.__module__.split(".")[:2])  # a folder's names are those it re-exports
        text += inspect.getdoc(getattr(import_module(home), other)) or ""
    call = thing.__init__ if inspect.isclass(thing) else thing
    arguments = [p for p in inspect.signature(call).parameters if p not in ("self", "args", "kwargs")]
    missing = [argument for argument in arguments if argument not in text]
    assert not missing, f"not in the docstring: {missing}"
    if not inspect.isclass(thing):
        assert "Args:" in text or not arguments
        assert "Returns:" in text
        assert "Raises:" in text or "raise " not in inspect.getsource(thing)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_has_an_example_that_runs(module: str, name: str) -> None:
    owner = import_module(module)
    if module.endswith((".history", ".surrogate")):
        assert ">>>" in inspect.getsource(owner)  # values and formulas: one in the module is enough
    else:
        assert ">>>" in (inspect.getdoc(getattr(owner, name)) or "")


def test_the_top_level_holds_only_what_belongs_there() -> None:
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    folders = {"mfp_neurons", "examples", "docs", "tests", "benchmarks"}
    files = {"pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert {name for name in top if not name.startswith(".")} <= folders | files
