"""A GAN's networks with a model card, as a folder and on the Hugging Face Hub.

The folder, which `mmgan.load` reads like a run:

    generator.safetensors      weights of the generator, raw or averaged
    discriminator.safetensors  weights of the discriminator
    mmgan.json                 format, step, which weights the generator has, channels, resolution, SHA-256 of both
                               files; for a conditional GAN also its classes and the weights for drawing labels
    config.yaml                the run's configuration, without comments and paths
    scores.json                the run's records of these weights, if there are any, without paths
    samples.png                a grid of samples of seed 0
    README.md                  the model card
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path, PurePath
from typing import Any

import jinja2
import yaml

from mmgan import modules
from mmgan.engine import files
from mmgan.engine.checkpoint import FORMAT, PUSHED, as_safetensors
from mmgan.engine.cli import config_of
from mmgan.errors import UserError
from mmgan.gan import hub
from mmgan.gan.config import GANConfig
from mmgan.gan.run import GANRun, load
from mmgan.gan.sample import generate, save_grid
from mmgan.scoring.records import Record, summary

RECIPE = [
    *("mixup", "loss", "r1_gamma", "r2_gamma", "augment", "conditional", "generator", "discriminator", "steps"),
    *("n_dis", "batch_size", "g_batch_size", "reuse_fakes", "lr", "betas", "lr_schedule", "burn_in", "ema"),
    *("mixed_precision", "seed"),
]
"""Options that the model card shows."""
INCEPTION = "inception-v3-compat"
"""The extractor of published scores."""
SHOWN = 10
"""Classes in the picture of samples, and images of each."""


def push(
    run: GANRun | str | Path,
    repo: str,
    dry_run: str | Path | None = None,
    private: bool = False,
    licence: str = "mit",
) -> str:
    """Upload the generator and the discriminator of a run to the Hugging Face Hub, with a model card.

    `run` is what `mmgan.load` opened, or a folder, whose last checkpoint is used. `repo` is `user/name`; the repository
    is created if it does not exist, `private` or public. `licence` applies to the weights, by its name on the Hub. With
    `dry_run`, a new or empty folder, the files are written there and nothing is uploaded. `mmgan.load` opens that
    folder as well as `user/name`.

    The model card is made from the run's records. Paths in the configuration and the scores are reduced to their last
    part, and of the run's environment only the versions of libraries are uploaded. huggingface_hub finds the token:
    HF_TOKEN, or that of `hf auth login`.

    Returns the address on the Hub, or the folder. Raises UserError for what cannot be pushed, or if the Hub refuses it
    or cannot be reached.

    Examples:
        >>> import mmgan
        >>> pushed = mmgan.push(folder, "user/digits", dry_run=folder / "pushed")
        >>> mmgan.load(pushed).sample(2).shape
        torch.Size([2, 1, 8, 8])
    """
    if not hub.is_name(repo):
        raise UserError(f"{repo} is not the name of a repository, which is user/name, of letters, digits, -, _ and .")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise UserError(f"licence must be a name that the Hub uses, such as mit, cc-by-4.0 or other, not {licence!r}")
    opened = run if isinstance(run, GANRun) else load(run)
    if dry_run is None:
        with tempfile.TemporaryDirectory() as folder:
            _write(opened, Path(folder), repo, licence)
            return hub.send(Path(folder), repo, private)
    target = Path(dry_run).expanduser()
    with files.writing(target, "--dry_run"):
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise UserError(f"{target} is not empty; choose another --dry_run")
        _write(opened, target, repo, licence)
    return str(target)


def _write(run: GANRun, folder: Path, repo: str, licence: str) -> None:
    """Write the files of a run into an empty folder."""
    contents = {f"{name}.safetensors": _weights(run, name) for name in ("generator", "discriminator")}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    facts: dict[str, Any] = {"format": FORMAT, "step": run.step, "generator": run.weights}
    facts |= {"channels": run.shape[0], "resolution": run.shape[1]}
    if run.inputs.names:
        facts |= {"classes": run.inputs.names, "weights": run.inputs.weights}
    values = _without_paths(files.read_yaml(run.folder / "config.yaml"))
    records = _without_paths([record for record in run.scores if _is_of(record, run)])
    card = _card(run, config_of(GANConfig, values), records, repo, licence)
    for name, content in contents.items():
        files.write(folder / name, content)
    files.write(folder / PUSHED, json.dumps(facts | {"sha256": sums}, indent=1) + "\n")
    files.write(folder / "config.yaml", yaml.safe_dump(values, sort_keys=False))
    if records:
        files.write(folder / "scores.json", json.dumps(records, indent=1) + "\n")
    shown = run.inputs.names[:SHOWN]
    z = run.inputs.rows(0, SHOWN, shown) if shown else run.inputs(0, 0, SHOWN**2)
    save_grid(generate(run.generator, z), folder / "samples.png", SHOWN)
    files.write(folder / "README.md", card)


def _weights(run: GANRun, name: str) -> bytes:
    """A network as a safetensors file; raises UserError for a state that such a file cannot hold."""
    content, beside = as_safetensors(name, getattr(run, name))
    if beside:
        raise UserError(
            f"the {name} cannot be pushed: its {next(iter(beside))} is complex or not a tensor, which a safetensors "
            "file cannot hold"
        )
    return content


def _without_paths(value: Any) -> Any:
    """The values of a configuration or of records, with every path reduced to its last part."""
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and "/" in value else value


def _is_of(record: Record, run: GANRun) -> bool:
    """Whether a record belongs to the weights that were opened."""
    return record["step"] == run.step and record["stamp"].get("generator") == run.weights


def _card(run: GANRun, config: GANConfig, records: list[Record], repo: str, licence: str) -> str:
    """The model card, in Markdown."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((Path(__file__).parent / "card.md").read_text())
    return template.render(
        run=run,
        config=config,
        repo=repo,
        licence=licence,
        names=run.inputs.names,
        shown=SHOWN,
        foreign=sorted({name for name in modules.classes_in(config) if name.partition(".")[0] not in modules.OWN}),
        recipe={name: str(getattr(config, name)).replace("|", "\\|") for name in RECIPE},
        libraries=_libraries(run.folder / "environment.json"),
        scores=_tables(records, run.folder / "scores.json"),
        others=sorted({record["stamp"].get("extractor") for record in records} - {INCEPTION}),
    )


def _libraries(file: Path) -> dict[str, str]:
    """Versions of libraries at the run's last start; none without that file, as in a folder that was pushed before."""
    if not file.exists():
        return {}
    try:
        last = files.read_json(file)[-1]
        return {"Python": last["python"]} | last["libraries"]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it") from error


def _tables(records: list[Record], file: Path) -> list[str]:
    """The records as text tables, one per protocol, as the commands print them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json.dumps([record["protocol"], record["stamp"]]), []).append(record)
    try:
        return [summary(*group) for group in groups.values()]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it and score the run again") from error
