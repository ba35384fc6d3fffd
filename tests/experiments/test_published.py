"""The paper's figures are in one file, as the paper prints them, and everything else cites them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from classifiers.evaluation.deform import TABLE_5
from mmgan.errors import UserError
from mmgan.experiments.pages import insert
from mmgan.experiments.published import number, published, table
from mmgan.scoring import protocol
from tests.conftest import ROOT

PAGE, MAP = (ROOT / "docs/published.md").read_text(), (ROOT / "docs/paper.md").read_text()
CONFIGS = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "configs").rglob("*.yaml"))}
ID = rf"\b(?:{'|'.join(sorted({name.partition('-')[0] for name in published()}))})-[a-z0-9]+(?:-[a-z0-9]+)+"
"""Anything that looks like an id."""
READ = [
    ("5.12 3.50 2.89", "table-1-cifar10-preactresnet18", "none input manifold"),
    ("0.2646 n/a n/a 0.1945 0.1407", "table-1-cifar10-preactresnet18-nll", "none input manifold"),
    ("3.90 3.52", "table-1-cifar10-preactresnet18-quoted", "input adamix"),
    ("4.20 3.15 2.76 2.38", "table-1-cifar10-preactresnet152", "none input manifold all-layers"),
    ("0.1994 0.2312 0.1419 0.0957", "table-1-cifar10-preactresnet152-nll", "none input manifold all-layers"),
    ("24.68 21.10 21.05", "table-1-cifar100-preactresnet18", "none input manifold"),
    ("n/a 1.284 n/a 0.913", "table-1-cifar100-preactresnet18-nll", "none manifold"),
    ("22.79 20.39", "table-1-cifar100-preactresnet34", "input manifold"),
    ("1.085 0.930", "table-1-cifar100-preactresnet34-nll", "input manifold"),
    ("this caused us to achieve 4.86% test error when trained on", "section-5-1-blocked-400", "blocked"),
    ("and 4.33% test error when trained on", "table-1-cifar10-preactresnet18", "blocked"),
    (
        "vanilla PreResNet50 (4.96 +- 0.19), Dropout (5.09 +- 0.09), Cutout (Devries & Taylor) (4.77 +- 0.38), "
        "Mixup (4.25 +- 0.11) and Manifold Mixup (3.77 +- 0.18)",
        "section-5-1-regularisers",
        "none dropout cutout input manifold",
    ),
    ("6.09% (Vanilla PreResNet18), 5.54% (Mixup) and 5.16% (Manifold Mixup)", "section-5-1-knn", "none input manifold"),
    ("Semi-supervised Input Mixup 10.71 +- 0.44", "table-2-cifar10", "ssl-input"),
    ("Semi-supervised Manifold Mixup 5.70 +- 0.48", "table-2-svhn", "ssl-manifold"),
    ("We obtained 13.64 % test error", "section-5-2-low-data", "manifold"),
    ("56.10 81.80 36.32 71.51 77.50", "table-3-cifar10", "adversarial fortified none input manifold"),
    ("40.7 44.96", "table-3-cifar100", "input manifold"),
    ("21.49 56.98 65.91 72.80", "table-3-svhn", "none input manifold adversarial"),
    ("No Mixup 1.6, Input Mixup (1.0) 0.0, Ground Truth Factor Mixup (1.0) 94.77", "table-4-a-accuracy", ""),
    ("4.2871 1.4181 0.1279", "table-4-c-nll", "none input factor"),
    ("Zoom Out (180% rescale): 7.98 18.11 18.02 15.68", "table-5-zoom-180", "none input input-alpha-2 manifold"),
    (
        "reduced the mixup model's accuracy to 1% and reduced the Manifold Mixup model's accuracy to 0%",
        "appendix-f-unbounded",
        "",
    ),
    (
        "achieving an average Inception / FID of 8.04 +- 0.08 / 21.2 +- 0.47, input mixup achieving 8.03 +- 0.08 / "
        "21.4 +- 0.56, for the baseline experiment 7.97 +- 0.07 / 21.9 +- 0.62",
        "appendix-g-is appendix-g-fid",
        "input-h1-h2 input none",
    ),
    ("reduces error relative to VAT by 21.86% on CIFAR-10", "section-1-less-error-than-vat", ""),
]
"""Words or cells of the paper, the entries that their numbers are in by turns, and the arms (none: all of them)."""


def head(path: Path) -> str:
    """The comment at the start of a configuration, without its marks."""
    lines = path.read_text().splitlines()
    return "\n".join(line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")])


@pytest.mark.parametrize(("words", "names", "arms"), READ, ids=[names for _, names, _ in READ])
def test_an_entry_is_as_the_paper_prints_it(words: str, names: str, arms: str) -> None:
    entries = [published()[name].values for name in names.split()]
    words = re.sub(r"\(1\.0\)|Zoom Out \(180% rescale\)|PreResNet\d+|CIFAR-10", "", words)
    printed = [values[arm] for arm in arms.split() or entries[0] for values in entries]
    assert re.findall(r"\d+(?:\.\d+)?(?: \+- [\d.]+\d)?", words) == printed


def test_entries_are_complete_and_unlike() -> None:
    figures = list(published().values())
    assert [figure.id for figure in figures] == list(published())
    settings = [(figure.place, figure.setting, figure.measure) for figure in figures]
    assert len(set(settings)) == len(settings)
    assert all(figure.place and figure.setting and figure.measure and figure.unit in ("", "%") for figure in figures)


def test_every_deformation_of_table_5_has_an_entry_and_their_mean_is_right() -> None:
    entries = {figure.measure: figure for figure in published().values() if figure.place == "Table 5"}
    assert list(entries) == [*(f"deformed/{row.name}" for row in TABLE_5), "deformed"]
    for arm, mean in entries.pop("deformed").values.items():
        errors = [100 - number(entry.values[arm]) for entry in entries.values()]
        assert number(mean) == pytest.approx(sum(errors) / len(errors), abs=0.005)


def test_what_section_1_says_follows_from_table_2() -> None:
    errors = {arm: number(text) for arm, text in published()["table-2-cifar10"].values.items()}
    less = {arm: f"{100 * (1 - errors['ssl-manifold'] / errors[arm]):.2f}" for arm in ("vat", "vat-em")}
    claim = published()["section-1-less-error-than-vat"]
    assert less["vat-em"] == claim.values["ssl-manifold"]
    assert less["vat"] in claim.note


def test_a_number_is_read() -> None:
    assert (number("5.12"), number("4.96 +- 0.19"), number("1")) == (5.12, 4.96, 1.0)
    for text in ("", "n/a", "4.96 +-", "-1", "5.12 %"):
        with pytest.raises(ValueError, match="neither a number"):
            number(text)


def test_the_page_has_the_table_as_it_is(tmp_path: Path) -> None:
    assert table() in PAGE, "docs/published.md is older than published.yaml: scripts/pages.py"
    page, (before, after) = tmp_path / "published.md", PAGE.split(table())
    page.write_text(f"{before}stale{after}")
    assert insert(page, "published", table())
    assert page.read_text().split() == PAGE.split()
    page.write_text(before)
    with pytest.raises(UserError, match="lacks the line <!-- /published -->"):
        insert(page, "published", table())
    page.write_text("no table")
    assert not insert(page, "published", table())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_cites_what_there_is(name: str) -> None:
    text = head(CONFIGS[name])
    assert set(re.findall(ID, text)) <= published().keys()
    if "Published:" in text:
        assert re.search(rf"Published: {ID}", text)


def test_a_configuration_cites_the_figures_of_its_rows() -> None:
    bases = re.findall(r"^\|.*?\| (cifar\d+|regularisers|svhn)\b(.*)", MAP, re.MULTILINE)
    rows = [("configs/cls/{}.yaml", *row) for row in bases]
    rows += [("{}", *row) for row in re.findall(r"^\|.*?\| `(configs/[\w/]+\.yaml)(.*)", MAP, re.MULTILINE)]
    rows += [("configs/ssl/{}.yaml", name, f"`table-2-{name}`") for name in ("cifar10", "svhn")]
    assert len(rows) == 41 + 5 + 2
    for path, name, cells in rows:
        text = head(CONFIGS[path.format(name)])
        for cited in re.findall(rf"`({ID}|table-5-)", cells):
            assert cited in text, (name, cited)
    assert set(re.findall(ID, MAP)) <= published().keys()


def test_numbers_are_nowhere_else() -> None:
    known = {one for figure in published().values() for one in re.findall(r"\d+\.\d{2,}", str(figure.values))}
    texts = {name: head(path) for name, path in CONFIGS.items()} | {"docs/paper.md": MAP}
    for name, text in texts.items():
        assert not known & set(re.findall(r"\d+\.\d{2,}", text)), name


def test_numbers_that_are_repeated_in_words_are_right() -> None:
    means = {name: {arm: text.split()[0] for arm, text in one.values.items()} for name, one in published().items()}
    scoring = " ".join((ROOT / "docs/scoring.md").read_text().split())
    assert "reported with FID {studiogan} and {mmgeneration}".format(**means["studiogan-sngan-cifar10-fid"]) in scoring
    said = " ".join(Path(protocol.__file__).read_text().split())
    fid, inception = (means[f"appendix-g-{name}"]["none"] for name in ("fid", "is"))
    assert f"FID {fid} at IS {inception}" in said
    assert f"close to their {means['miyato-sngan-cifar10-fid']['none']}" in said
