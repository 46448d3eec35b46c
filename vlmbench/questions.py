"""Have the questions of FairVLMed-VQA written from the clinical notes, by a model behind an OpenAI-compatible endpoint.

python -m vlmbench.questions domain=fairvlmed_vqa model=hosted_local model.source=NAME
python -m vlmbench.questions model=hosted_local model.source=NAME limit=20 output=trial    # a trial of 60 images
python -m vlmbench.questions model=MODEL consent=true       # notes go to another machine: read the agreement first

Writes vqa_train.csv, vqa_validation.csv, vqa_test.csv and questions.json into the folder that the domain reads them
from. Every answer is kept as it comes (model.cache): a run that was killed goes on where it stopped, and the same
command again asks nothing. docs/fairvlmed_vqa.md describes the recipe.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vlmbench.config import schema
from vlmbench.config.checks import check_endpoint, check_fields
from vlmbench.config.domain_checks import check_domain
from vlmbench.config.endpoint import is_local
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ConfigError, unknown

READER = "fairvlmed_vqa"
UNBALANCED = 0.6  # share of closed questions with one answer from which it is told


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("questions", __doc__ or "")
    for config in composed.configs:
        check(config)
    for config in composed.configs:
        print(write(config))
    return 0


def check(config: schema.QuestionsConfig) -> None:
    """Check a configuration before anything is read.

    Raises:
        ConfigError: The model is not hosted or cannot be asked, the domain has no recipe, or nobody has consented to
            notes leaving this machine.
    """
    check_fields(config)
    model, domain = config.model, config.domain
    if not isinstance(model, schema.HostedModelConfig):
        raise ConfigError(
            f"model={model.name} is not behind an endpoint. Take model=hosted_local, or another hosted one."
        )
    if not isinstance(domain, schema.PublishedDomainConfig) or domain.reader != READER:
        raise ConfigError(unknown("domain", domain.name, ["fairvlmed_vqa"]))
    check_endpoint(model)
    check_domain(domain, "vqa")
    host = urlsplit(model.base_url).hostname or ""
    if not config.consent and not is_local(host):
        raise ConfigError(
            f"clinical notes would leave this machine for {host}, which the agreement under which you have the data "
            "may forbid, even though they are de-identified. If it allows this, say consent=true; else serve a model "
            "on this machine (model=hosted_local model.base_url=http://localhost:8000/v1)."
        )


def write(config: schema.QuestionsConfig) -> str:
    """Have the questions of one configuration written and return what came of it, in a few lines.

    Raises:
        UserError: The dataset, the endpoint or the output folder is not as it must be; no table is written.
    """
    from vlmbench.asking import fairvlmed
    from vlmbench.asking.ask import Writer
    from vlmbench.asking.recipe import RECIPE, read_recipe
    from vlmbench.hosted.answers import AnswerCache
    from vlmbench.hosted.endpoint import Endpoint

    model, domain = config.model, config.domain
    assert isinstance(model, schema.HostedModelConfig)  # noqa: S101 - checked before
    assert isinstance(domain, schema.PublishedDomainConfig)  # noqa: S101
    root, recipe = Path(domain.root).expanduser(), read_recipe()
    folder = root / Path(str(domain.settings.get("folder", "."))).expanduser()
    folder = Path(config.output).expanduser() if config.output else folder
    identity: dict[str, Any] = {
        "recipe": recipe.version,
        "recipe_sha256": hashlib.sha256(RECIPE.read_bytes()).hexdigest(),
        "model": model.source,
        "endpoint": model.base_url,
        "settings": model.settings,
        **{key: getattr(config, key) for key in ("seed", "attempts", "max_tokens", "column", "limit")},
    }
    fairvlmed.check_target(folder, identity, overwrite=config.overwrite)
    notes, silent = fairvlmed.read_notes(root, config.column, config.seed, config.limit)
    writer = Writer(
        Endpoint(model.base_url, model.api_key_env, timeout=model.timeout, retries=model.retries),
        AnswerCache(Path(model.cache).expanduser()),
        model.source,
        recipe,
        seed=config.seed,
        attempts=config.attempts,
        budget=config.max_tokens + model.extra_tokens,
        settings=model.settings,
        token_field=model.token_field,
        concurrency=model.concurrency,
    )
    print(f"{len(notes):,} images; {model.source} at {model.base_url} is asked", file=sys.stderr)
    texts, counts = fairvlmed.tables(notes, writer.write(notes), recipe)
    usage = writer.usage()
    fairvlmed.save(folder, texts, {**identity, "images_without_text": silent, **counts, "usage": usage})
    return told(folder, counts, usage, silent)


def told(folder: Path, counts: dict[str, Any], usage: dict[str, Any], silent: int) -> str:
    """Return what came of it, in a few lines."""
    lines = [f"questions: {folder}"]
    for split, counted in counts["splits"].items():
        number = {key: counted.get(key, 0) for key in ("images", "open", "closed", "yes", "no")}
        lines.append(
            f"  {split:<10} {number['images']:,} images, {number['open']:,} open and {number['closed']:,} closed "
            f"questions ({number['yes']:,} yes, {number['no']:,} no)"
        )
        most = max(number["yes"], number["no"])
        if most > UNBALANCED * number["closed"] and 2 * most - number["closed"] > 1:
            lines[-1] += f": NOT BALANCED, {most / number['closed']:.0%} have one and the same answer"
    for key, what in (
        ("unusable_replies", "replies of no use"),
        ("images_left_out", "images left out"),
        ("questions_left_out", "questions left out, about what no image shows"),
    ):
        if counts[key]:
            lines.append(f"  {what}: {', '.join(f'{reason} {count:,}' for reason, count in counts[key].items())}")
    if silent:
        lines.append(f"  images without a text in the table: {silent:,}")
    paid, kept = usage["paid"], usage["cached"]
    lines.append(
        f"  {paid['answers']:,} answers paid ({paid['input_tokens']:,} tokens in, {paid['output_tokens']:,} out), "
        f"{kept['answers']:,} kept ones used"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
