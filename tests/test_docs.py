"""The site builds without a warning, and what its pages name, run and show is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState

from classifiers.config import ClassifierConfig
from mmgan.engine import cli
from mmgan.experiments.experiment import Experiment
from mmgan.gan.config import GANConfig
from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"
GUIDES = sorted([*DOCS.glob("*.md"), *DOCS.glob("api/*.md")])
PAGES = sorted(DOCS.rglob("*.md"))
NAME = {page: str(page.relative_to(DOCS)) for page in PAGES}


def blocks(page: Path, language: str) -> list[str]:
    """The code of a page in one language, without that of files, which have a title."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strictly: every link and anchor within it exists, and so does every object of the reference."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("mmgan", "classifiers"):
        (tmp_path / name).symlink_to(ROOT / name)
    line = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    page = (tmp_path / "site" / "api" / "gan" / "index.html").read_text()
    for name in ("mmgan.train", "mmgan.load", "mmgan.GANConfig.r1_gamma"):
        assert f'id="{name}"' in page, name


def test_every_page_is_in_the_navigation() -> None:
    said = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert said == set(NAME.values())


@pytest.mark.parametrize("page", PAGES, ids=NAME.values())
def test_links_stay_within_the_site(page: Path) -> None:
    """Files of the repository are named as code, for the site does not have them."""
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not link.startswith("https://"):
            target = Path(os.path.normpath(page.parent / link))
            assert target.is_relative_to(DOCS), link
            assert target.exists(), link


@pytest.mark.parametrize("page", GUIDES, ids=[NAME[page] for page in GUIDES])
def test_files_that_a_guide_names_exist(page: Path) -> None:
    named = r"`((?:scripts|benchmarks|configs|docs|tests|mmgan|classifiers)/[\w./-]+?)(?:[`:]|$)"
    for path in set(re.findall(named, page.read_text(), re.MULTILINE)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page, "python")], ids=lambda page: NAME[page])
def test_its_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "python"):
        AcceleratorState._reset_state(reset_partial_state=True)
        exec(compile(code, str(page), "exec"), {})


def commands(page: Path) -> list[list[str]]:
    """Its calls of mmgan, of which lines may be continued."""
    text = "\n".join([*blocks(page, "bash"), *re.findall(r"^    (mmgan .*)$", page.read_text(), re.MULTILINE)])
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [line[1:] for line in lines if line[:1] == ["mmgan"]]


@cache
def help_of(verb: str) -> str:
    """What the command mmgan says of one of its verbs."""
    line = [sys.executable, "-c", "import scripts; scripts.main()", verb, "--help"]
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [page for page in GUIDES if commands(page)], ids=lambda page: NAME[page])
def test_its_commands_have_the_options_they_name(page: Path) -> None:
    """A run's whole configuration is read; tests/test_own.py runs those that name classes of the user's own."""
    for verb, *options in commands(page):
        if verb in ("train-gan", "train-cls"):
            if not any(word.startswith("mine.") for word in options):
                cli.parse(GANConfig if verb == "train-gan" else ClassifierConfig, "", options)
            continue
        said = help_of(verb)
        for word in options:
            known = word in ("--list", "--form", "--trust") or f"{word.partition('=')[0]} " in said
            assert known or not word.startswith("--") or word.startswith("--extractor."), (verb, word)


def test_the_experiment_it_shows_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r'^```yaml title="digits.yaml"\n(.*?)^```', (DOCS / "experiments.md").read_text(), re.M | re.S)
    (tmp_path / "digits.yaml").write_text(text)
    config = cli.parse(Experiment, "", ["--config", str(tmp_path / "digits.yaml"), "--output", "x"]).config
    assert len(config.lines()) == 4 * 5
    assert yaml.safe_load(text)["planned"] is True
