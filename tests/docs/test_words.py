"""What pages say twice agrees with where it is said first: commands, extras, versions, what doctor prints."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mfp_neurons import __version__, cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
INSTALL = (ROOT / "docs" / "install.md").read_text()


def typed(command: str) -> list[tuple[Path, str]]:
    """(page, line) of every such command that a page types: behind a $, or as a line of the README."""
    pattern = rf"^\$ ({command} .+)$|^({command} .+)$"
    lines = {
        (page.relative_to(ROOT), behind or (at_start if page.name == "README.md" else ""))
        for page in PAGES
        for behind, at_start in re.findall(pattern, page.read_text(), flags=re.MULTILINE)
    }
    return sorted((page, line) for page, line in lines if line)


@pytest.mark.parametrize(("page", "line"), typed("mfp-neurons"), ids=str)
def test_the_command_line_takes_what_a_page_types(page: Path, line: str) -> None:
    cli.build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize(("page", "line"), typed("make"), ids=str)
def test_a_page_names_only_targets_that_the_makefile_has(page: Path, line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"[`(]((?:\w+/)*\w+(?:/|\.py|\.h|\.svg))[`)]", text)
    assert len(named) > 30
    missing = [
        name for name in named if not ((ROOT / name).exists() or (ROOT / "mfp_neurons" / name).exists())
    ]
    assert missing == []


def test_the_readme_names_the_demo_and_the_tests() -> None:
    assert {"demo", "test"} <= {line.split()[1] for page, line in typed("make") if page.name == "README.md"}


def test_the_install_page_names_every_extra_and_no_other() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    table = re.findall(r"^\| (`.+?) \|", INSTALL, flags=re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", " ".join(table))) == extras - {"dev"}


def test_the_install_page_shows_the_rows_that_doctor_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"^\$ mfp-neurons doctor\n(.*?)^```", INSTALL, flags=re.MULTILINE | re.DOTALL)
    cli.main(["doctor"])
    rows = [re.findall(r"^ *(\S+)", text, flags=re.MULTILINE) for text in (shown, capsys.readouterr().out)]
    cuda = re.compile(r"cuda(:\d+)?$|auto")  # as many as the machine has
    assert [r for r in rows[0] if not cuda.match(r)] == [r for r in rows[1] if not cuda.match(r)]


@pytest.mark.parametrize("file", ["CITATION.cff", "docs/about/cite.md"])
def test_a_citation_names_this_version(file: str) -> None:
    assert re.findall(r"^ *version *[:=] *\{?([\w.]+)", (ROOT / file).read_text(), flags=re.MULTILINE) == [
        __version__
    ]
