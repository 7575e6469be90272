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
ROOT = PACKAGE.parent

# Who may know whom, lowest first: a module imports from earlier rows alone, when it is imported, later, for
# types or by a string. Files in one folder import each other. benchmarks/ knows all of them.
LAYERS = [
    ["_checks", "_files"],
    ["_build", "_reset", "_saved_spikes", "_undisturbed"],
    ["kernels"],
    ["history", "norm", "quantize", "surrogate"],
    ["backends", "reference", "spec"],
    ["_arguments", "_serial", "ops"],
    ["feedback", "functional"],
    ["baseline", "neuron", "pooling"],
    ["snntorch", "spikingjelly"],
    ["adapters"],
    ["_convert"],
    ["reporting"],
    ["architectures", "orders"],
    ["network"],
    ["deploy"],
    ["_doctor", "neurobench", "nir"],
    ["train"],
    ["zoo"],
    ["cli"],
    ["__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Who may import what besides the standard library, torch and the package, when imported or later.
ON_IMPORT = {
    "deploy": {"numpy"},
    "network": {"numpy"},
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
    "snntorch",
    "spikingjelly",
    "tensorboard",
    "tonic",
    "torchvision",
    "tqdm",
    "wandb",
]
LATER = {
    "architectures": {"spikingjelly"},
    "deploy": {"safetensors"},
    "kernels": {"cupy"},
    "train": set(_TRAIN),
}

# Modules imported by a name that only a run knows, and what it can be.
COMPUTED = {
    "_checks.py": "the argument of require, whose callers are looked at",
    "_convert.py": "an adapter",
    "deploy/check.py": "a function of the same name, which imports nothing",
    "train/datasets/frameworks.py": "a module of spikingjelly.datasets",
    "train/network.py": "a builder of one's own",
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer(path: Path) -> str:
    """The top-level module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str | None, bool]]:
    """(absolute dotted name, whether it runs when the file is imported) for every import in a file.

    ``require(...)`` and ``import_module(...)`` are imports too: of the name that they are given, as far as it
    is written out in the file (an f-string up to its first value that is not); None where nothing of it is.
    """
    folder = list(path.relative_to(ROOT).parts[:-1])
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    by_name = {
        "import_module",
        *({"require"} & imported),
    }  # some files have a function "require" of their own

    def written(node: ast.expr) -> tuple[str, bool]:
        """The text of an expression from its start, and whether that is all of it."""
        match node:
            case ast.Constant(value=str(text)):
                return text, True
            case ast.Name(id=name) if isinstance(constants.get(name), str):
                return constants[name], True
            case ast.FormattedValue(value=value):
                return written(value)
            case ast.JoinedStr(values=values):
                start = ""
                for value in values:
                    text, complete = written(value)
                    start += text
                    if not complete:
                        return start, False
                return start, True
        return "", False

    def walk(node: ast.AST, now: bool) -> Iterator[tuple[str | None, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, now) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = folder[: len(folder) + 1 - child.level] if child.level else []
                parts = [*base, *([child.module] if child.module else [])]
                for alias in child.names:
                    yield ".".join([*parts, alias.name]), now
            elif isinstance(child, ast.Call) and _called(child) in by_name:
                name, _ = written(child.args[0])
                level = len(name) - len(name.lstrip("."))
                base = folder[: len(folder) + 1 - level] if level else []
                yield ".".join([*base, *filter(None, name.split("."))]) or None, False
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(child)
            yield from walk(child, now and not later)

    yield from walk(tree, True)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("path", sources(), ids=short)
def test_a_module_imports_only_from_layers_below_it(path: Path) -> None:
    own = layer(path)
    if own == "__init__":
        pytest.skip("the front door re-exports from everywhere")
    assert own in RANK, f"{own} is new: give it a place in LAYERS"
    for name, _ in imports(path):
        if name is None:
            assert short(path) in COMPUTED
            continue
        root, *rest = name.split(".")
        if root != "mfp_neurons":
            continue
        target = rest[0] if rest and rest[0] in RANK else None
        if target is None:  # from the front door
            assert RANK[own] >= RANK["nir"], f"{own} imports {name} through the package's front door"
        elif target != own:
            assert RANK[target] < RANK[own], f"{own} imports {name}, which is not below it"


@pytest.mark.parametrize("path", sources(), ids=short)
def test_optional_packages_are_imported_only_where_they_belong(path: Path) -> None:
    """And benchmarks and tests, which are no part of what is installed, nowhere."""
    own = layer(path)
    for name, now in imports(path):
        root = (name or "torch").split(".")[0]
        if root in ("torch", "mfp_neurons") or root in sys.stdlib_module_names:
            continue
        allowed = ON_IMPORT.get(own, set()) | (set() if now else LATER.get(own, set()))
        assert root in allowed, f"{own} imports {name} {'on import' if now else 'later'}"


def test_no_file_imports_itself_by_a_detour() -> None:
    """In the package, its front door apart, and in benchmarks."""
    files = [*sources(), *(ROOT / "benchmarks").rglob("*.py")]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    modules = {name.removesuffix(".__init__"): path for name, path in dotted.items()}
    del modules["mfp_neurons"]

    def needs(module: str) -> set[str]:
        names = [name or "" for name, _ in imports(modules[module])]
        owners = (name if name in modules else name.rpartition(".")[0] for name in names)
        return {owner for owner in owners if owner in modules and owner != module}

    graph = {module: needs(module) for module in modules}
    while free := {module for module, needed in graph.items() if not needed & graph.keys()}:
        for module in free:
            del graph[module]
    assert not graph, "these import each other, or stand above those that do"


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
import mfp_neurons.deploy.lowering; news()
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
    for folder, suffix in (("train/configs", ".toml"), ("zoo/networks", ".json")):
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
    "mfp_neurons.network": ["NetworkDescription", "describe"],
    "mfp_neurons.nir": ["NIRNetwork", "from_nir", "to_nir"],
    "mfp_neurons.quantize": ["codes", "materialize"],
    "mfp_neurons.snntorch": ["MFPLeaky", "MFPLeakyParallel"],
    "mfp_neurons.zoo": ["card", "list", "load"],
    "mfp_neurons.surrogate": ["ATan", "Erf", "PiecewiseQuadratic", "Rect", "Sigmoid", "SuperSpike"],
}
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_says_what_it_takes_gives_and_refuses_and_shows_it(module: str, name: str) -> None:
    owner = import_module(module)
    thing = getattr(owner, name)
    text = inspect.getdoc(thing) or ""
    assert len(text.splitlines()[0]) > 20, "no summary line"
    # values and formulas: one example in the module is enough
    assert ">>>" in (inspect.getsource(owner) if module.endswith((".history", ".surrogate")) else text)
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


def test_the_top_level_holds_only_what_belongs_there() -> None:
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    folders = {"mfp_neurons", "examples", "docs", "tests", "benchmarks"}
    files = {
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "pyproject.toml",
    }
    assert {name for name in top if not name.startswith(".")} <= folders | files
