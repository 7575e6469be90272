"""What pages say twice agrees with where it is said first: commands, extras, versions, what doctor prints."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mfp_neurons import __version__
from mfp_neurons._doctor import doctor
from mfp_neurons.cli import _parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
COMMANDS = {
    (page.relative_to(ROOT), line)
    for page in PAGES
    for line in re.findall(r"^\$ (.+)$", page.read_text(), flags=re.MULTILINE)
}


def of(program: str) -> list[tuple[Path, str]]:
    return sorted(one for one in COMMANDS if program in shlex.split(one[1]))


@pytest.mark.parametrize(("page", "line"), of("mfp-neurons"), ids=str)
def test_the_command_line_takes_what_a_page_types(page: Path, line: str) -> None:
    words = shlex.split(line)
    if words[0] == "mfp-neurons":  # and not `git clone ... mfp-neurons`
        _parser().parse_args(words[1:])


@pytest.mark.parametrize(("page", "line"), of("make"), ids=str)
def test_a_page_names_only_targets_that_the_makefile_has(page: Path, line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_the_install_page_names_every_extra_and_no_other() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    table = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "install.md").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", " ".join(table))) == extras - {"dev"}


def test_the_install_page_shows_the_rows_that_doctor_prints() -> None:
    (shown,) = re.findall(
        r"^\$ mfp-neurons doctor\n(.*?)^```",
        (ROOT / "docs" / "install.md").read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    rows = [re.findall(r"^ *(\S+)", text, flags=re.MULTILINE) for text in (shown, doctor())]
    cuda = re.compile(r"cuda(:\d+)?$|auto")  # as many as the machine has
    assert [r for r in rows[0] if not cuda.match(r)] == [r for r in rows[1] if not cuda.match(r)]


@pytest.mark.parametrize("file", ["CITATION.cff", "docs/about/cite.md"])
def test_a_citation_names_this_version(file: str) -> None:
    assert re.findall(r"^ *version *[:=] *\{?([\w.]+)", (ROOT / file).read_text(), flags=re.MULTILINE) == [
        __version__
    ]
