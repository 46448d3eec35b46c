"""Every model that can be chosen is proved and told of; a further one of a known family is one YAML file."""

import models_table
import pytest
from conftest import SMALL
from releases import makers

from vlmbench.catalogue.read import read_models
from vlmbench.config.schema.model import CONTRASTIVE_LOADERS, GENERATIVE_LOADERS

MODELS = read_models()
REAL = {name: model for name, model in MODELS.items() if not model.source.startswith("package:")}
# The models of arXiv 2506.17337: eight for diagnosis, ten for visual question answering.
STUDY = (
    *("clip", "blip2", "siglip", "medclip", "plip", "pubmedclip", "biomedclip", "medsiglip"),
    *("llava", "llava_med", "qwen2_vl", "qwen25_vl", "lingshu", "gemma3", "medgemma", "internvl3", "o3", "gemini"),
)


def test_the_studys_models_and_many_more_are_there():
    assert set(STUDY) <= REAL.keys()
    assert len(REAL) >= len(STUDY) + 8


@pytest.mark.parametrize("name", sorted(REAL))
def test_a_model_is_proved_and_says_what_it_is(name):
    model = REAL[name]
    assert model.role in ("generalist", "specialist")
    assert model.pretraining_source
    assert model.licence or model.kind == "hosted"
    assert not model.pair or MODELS[model.pair].role != model.role
    assert not model.gated or model.how_to_get
    if model.kind == "hosted":
        return
    assert name in makers()
    assert model.parameters
    assert model.download_gib > 0
    assert model.loader in (*CONTRASTIVE_LOADERS, *GENERATIVE_LOADERS)
    numbers = models_table.proofs(name, model).split()
    assert {"1", "2", "4"} <= set(numbers)
    converted = model.loader in ("medclip", "pmc_clip", "conch", "llava_original", "vila", "xraygpt")
    assert ("3" in numbers) == converted


def test_both_sides_of_a_pair_learn_at_the_same_rates():
    for model in MODELS.values():
        if model.pair and model.kind != "hosted":
            assert model.learning_rates == MODELS[model.pair].learning_rates, model.name


def test_the_readme_has_the_table_as_it_is_now():
    text = models_table.README.read_text(encoding="utf-8")
    assert models_table.updated(text) == text, "python scripts/models_table.py"
    assert all(f"| `{name}` |" in text for name in REAL)


YAML = """# A CLIP of a user's own hospital. Used by: train
defaults:
  - /schema/model/{kind}@_here_
{task}
name: ours
loader: {loader}
source: {source}
role: specialist
pair: {pair}
pretraining_modalities: [radiograph]
pretraining_source: our archive
licence: internal
learning_rates: {{lora: 1.0e-3}}
{more}
"""
TASK = "  - override /task@_global_.task: vqa\n  - _self_\n"


@pytest.mark.parametrize(
    ("like", "kind", "task", "more"),
    [
        ("siglip2", "contrastive", "", "image_size: 32"),
        ("qwen25_vl", "generative", TASK, "processor: {image_processor: {min_pixels: 3136, max_pixels: 12544}}"),
    ],
)
def test_a_further_model_of_a_known_family_is_one_yaml(train, tmp_path, like, kind, task, more):
    makers()[like](tmp_path / "weights")
    folder = tmp_path / "weights" / "main"
    text = YAML.format(kind=kind, task=task, loader=MODELS[like].loader, source=folder, pair=like, more=more)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "ours.yaml").write_text(text)
    # Hydra's flags go before the first key.
    own = ("--config-dir", str(tmp_path / "conf"), "model=ours", "finetune=lora")
    ran = train(*own, *SMALL, "trainer.max_epochs=1", small=False)
    assert ran.status == 0, ran.err
    assert ran.record["status"] == "done"
    assert ran.record["cell"]["model"] == "ours"
    assert ran.record["exposure"] == "id"
    assert sum(part["trainable"] for part in ran.record["cost"]["parameters"].values()) > 0
