"""`python -m vlmbench.models`: the table, one model in words, the memory estimate, and where LoRA goes."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_weights import place, snapshot

from vlmbench.catalogue import memory, show, table
from vlmbench.catalogue.presence import presence
from vlmbench.catalogue.read import model_files, named, read_models
from vlmbench.catalogue.targets import configuration, targets
from vlmbench.config.faults import ConfigError
from vlmbench.config.store import conf_dir
from vlmbench.tuning.lora import add_lora
from vlmbench.tuning.tuners import Full, Lora
from vlmbench.weights.lock import Lock

__all__ = ["place"]  # a fixture of both
NONE = Lock(Path("none.lock"))
MODELS = read_models()


@pytest.fixture
def models(monkeypatch, capsys):
    """Run the command in this process; returns status, stdout, stderr."""

    def run_models(*arguments):
        from vlmbench.config.entry import run
        from vlmbench.models import main

        monkeypatch.setattr(sys, "argv", ["models", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run(main)
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run_models


# ------------------------------------------------------------------------------------------------------- the table


def test_every_model_is_in_the_table(models):
    status, out, _ = models()
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split() == list(table.HEAD)
    assert {line.split()[0] for line in lines[1:]} == {path.stem for path in (conf_dir() / "model").glob("*.yaml")}
    shipped = next(line for line in lines if line.startswith("tiny_medclip "))
    assert "package:tiny_medclip" in shipped
    assert shipped.endswith("shipped")


def test_the_table_is_quick_and_needs_no_torch():
    script = (
        "import sys, time; start = time.monotonic()\n"
        "sys.argv = ['models', '--json']\n"
        "from vlmbench.models import main\n"
        "main()\n"
        "heavy = {'torch', 'transformers', 'pandas', 'lightning'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), time.process_time(), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in ran.stderr
    assert float(ran.stderr.split()[-1]) < 1.5
    rows = json.loads(ran.stdout)
    assert {row["model"] for row in rows} == set(MODELS)
    assert set(rows[0]) == set(table.HEAD)


def test_reading_without_composition_gives_what_hydra_composes(command):
    for name in ("tiny_clip", "llava_med", "medclip"):
        status, out, err = command("train", f"model={name}", "--cfg", "job", "--resolve")
        assert status == 0, err
        from omegaconf import OmegaConf

        composed = OmegaConf.create(out).model
        assert composed == OmegaConf.structured(MODELS[name])


def test_a_users_own_model_is_listed_and_may_build_on_another(models, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "defaults:\n  - tiny_clip\n  - _self_\nname: mine\nsource: me/mine\ngated: true\ndownload_gib: 1.5\n"
    )
    status, out, _ = models("--config-dir", tmp_path)
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("mine ")]
    assert line.split()[1:3] == ["contrastive", "generalist"]
    assert line.split()[-3:] == ["1.50", "yes", "absent"]


@pytest.mark.parametrize(("text", "words"), [
    ("defaults: [/schema/model/contrastive@_here_]\nname: own\nsource: a/b\nrol: generalist\n", ["own.yaml", "rol"]),
    ("defaults: [/schema/model/contrastive@_here_]\nname: own\nsource: a/b\nrole: [\n", ["own.yaml", "line 5"]),
    ("name: own\n", ["own.yaml", "schema"]),
    ("defaults: [nowhere]\nname: own\n", ["own.yaml", "nowhere"]),
    ("- a\n- list\n", ["own.yaml"]),
    ("defaults: [own, _self_]\nname: own\n", ["own.yaml"]),
    ("defaults: [/schema/model/contrastive@_here_]\nname: own\nsource: a/b\nrole: pet\n", ["own.yaml", "pet"]),
])  # fmt: skip
def test_a_mistake_in_a_users_own_yaml_is_one_line(models, tmp_path, text, words):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text(text)
    status, _, err = models("--config-dir", tmp_path)
    assert status == 2
    assert err.startswith("vlmbench: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_an_unknown_name_is_told_with_the_nearest(models):
    status, _, err = models("show", "medgema")
    assert status == 2
    assert "Did you mean 'medgemma'?" in err
    assert err.count("\n") == 1
    with pytest.raises(ConfigError, match="not a folder"):
        model_files("/no/such/folder")
    assert models("show")[0] == 2
    assert models("list", "clip")[0] == 2


# ------------------------------------------------------------------------------------------------ what is in the cache


def test_the_cache_is_told_as_complete_partial_or_absent(place):
    model = dataclasses.replace(MODELS["tiny_clip"], source="owner/name", revision=None)
    assert presence(model, NONE) == "absent"
    folder = snapshot(place)
    assert presence(model, NONE) == "complete"
    (folder / "model.safetensors").unlink()
    assert presence(model, NONE) == "partial"
    # A commit that was asked for and is not the one in the cache.
    assert presence(dataclasses.replace(model, revision="9" * 40), NONE) == "partial"
    assert presence(MODELS["tiny_clip"], NONE) == "shipped"


# ------------------------------------------------------------------------------------------------------ one in words


def test_show_says_everything_of_a_gated_model(models):
    status, out, _ = models("show", "medgemma", "--lock", "/no/lock")
    assert status == 0
    for words in (
        "a generative specialist, the pair of gemma3",
        "Health AI Developer Foundations",
        "google/medgemma-4b-it at ",
        "fundus",
        "arXiv 2507.05201",
        "vision 416.9 M",
        "python -m vlmbench.fetch model=medgemma",
        "accept the terms on the model's page",
        "an estimate from the sizes alone",
        "LoRA",
    ):
        assert words in out, words


def test_show_in_json_has_patterns_counts_and_memory(models):
    status, out, _ = models("show", "clip", "--json", "--rank", "16")
    assert status == 0
    told = json.loads(out)
    row = {target["scope"]: target for target in told["lora"]["targets"]}["vision"]
    assert row["layers"] == 12 * 6
    # Query, key, value, output: 4 x (768 + 768); the two of the MLP: 2 x (768 + 3072).
    assert row["trainable"] == 16 * 12 * (4 * 2 * 768 + 2 * (768 + 3072))
    assert row["pattern"].startswith("(vision_model")
    taken = {method: row["gib"] for method, row in told["memory_gib"].items()}
    assert set(taken) == {"zero_shot", "linear_probe", "lp_text", "coop", "clip_adapter", "lora", "full"}
    assert taken["linear_probe"] == taken["lp_text"] == taken["clip_adapter"] < taken["coop"] < taken["lora"]
    assert told["cached"] == "absent"


def test_a_companion_is_named_and_sizes_that_nobody_declared_are_guessed():
    told = show.text(show.facts("medclip", MODELS["medclip"], NONE, rank=8))
    assert "needs      text: emilyalsentzer/Bio_ClinicalBERT" in told
    assert "136.6 M: vision 27.9 M, text 108.7 M" in told
    assert "an estimate from the sizes alone" in told
    silent = dataclasses.replace(MODELS["medclip"], parameters={})
    told = show.text(show.facts("medclip", silent, NONE, rank=8))
    assert "parameters   " not in told
    assert "an estimate from the size of the download alone" in told


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_can_be_shown(name, monkeypatch):
    # The networks are counted below and elsewhere; here each model's words, without a network.
    monkeypatch.setattr(show, "configuration", lambda *_: None)
    told = show.facts(name, MODELS[name], NONE, rank=8)
    assert json.loads(json.dumps(told)) == told
    text = show.text(told)
    assert text.startswith(f"{name}: a {told['kind']} {told['role']}")
    assert told["licence"] in text


# ------------------------------------------------------------------------------------------------- where LoRA goes


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_llava"])
def test_the_counts_are_those_of_the_method_itself(name):
    from vlmbench.cell.build import build_backbone

    model = MODELS[name]
    for target in targets(model.loader, configuration(model.architecture, model.source), 4):
        backbone = build_backbone(model, precision="32-true", trains_all=False, lock="none.lock")
        tuner = Lora(target.scope, 4, 8.0, 0.0) if target.pattern else Full(target.scope)
        assert backbone.lora_targets(target.scope) == target.pattern
        tuner.apply(backbone)
        assert sum(p.numel() for p in backbone.model.parameters() if p.requires_grad) == target.trainable, target.scope


def test_every_loader_says_where_lora_goes():
    from vlmbench.backbones.loaders import LOADERS

    for loader in LOADERS:
        scopes = {row.scope: row.pattern for row in targets(loader, None, 8)}
        assert any(scopes.values()) == (loader != "random_features"), loader  # nothing of it is tuned


# Layers of the towers, counted by hand: of each block of attention and of the MLP.
LAYERS = {
    "siglip": ("vision+text", 12 * 6 + 12 * 6),
    "blip": ("vision", 12 * 4),  # query, key and value are one
    "biomedclip": ("vision", 12 * 4),
    "quiltnet": ("text", 12 * 6),
    "llava": ("VL", 23 * 6 + 32 * 7),  # the tower's last layer is not read
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_a_published_configuration_are_found(name):
    scope, layers = LAYERS[name]
    model = MODELS[name]
    rows = {row.scope: row for row in targets(model.loader, configuration(model.architecture, model.source), 8)}
    assert rows[scope].layers == layers
    assert rows[scope].trainable


def test_without_a_configuration_the_patterns_are_told_and_not_counted():
    rows = targets("hf_vlm", None, 8)
    assert {row.scope for row in rows} == {"V", "M", "L", "VM", "VL", "ML", "VML"}
    assert all(row.layers is None and row.trainable is None for row in rows)
    assert "language_model" in rows[2].pattern


# ---------------------------------------------------------------------------------------------------------- memory

# GB on one GPU for LoRA in bfloat16, as a table of estimates for the study's models has them, with gradient
# checkpointing, which this program does not use: hence the width of what is admitted. Batch of each row.
RANGES = {
    "clip": (2, 6, 32),
    "siglip": (3, 6, 32),
    "biomedclip": (3, 6, 32),
    "medsiglip": (6, 12, 4),
    "blip2": (6, 10, 8),
    "blip2_opt": (10, 14, 1),
    "gemma3": (14, 20, 1),
    "llava": (18, 22, 1),
    "llava_med": (18, 24, 1),
    "llava_onevision": (22, 30, 1),
    "qwen2_vl": (20, 28, 1),
    "qwen25_vl": (20, 28, 1),
    "qwen3_vl": (20, 28, 1),
    "internvl3": (20, 26, 1),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_estimate_is_within_a_half_of_what_is_known(name):
    low, high, batch = RANGES[name]
    model = MODELS[name]
    parts = {part: count * 1e6 for part, count in model.parameters.items()}
    path = configuration(model.architecture, model.source)
    assert path is not None
    shape = memory.shape_of(model.kind, model.image_size, json.loads(path.read_text()))
    scope = model.default_scope
    trained = show._trained("lora", scope, parts, [])
    peak = memory.memory(parts, shape, "lora", trained=trained, scope=scope, batch=batch) / 1e9
    assert low / 1.5 < peak < high * 1.5
    zero = memory.memory(parts, shape, "zero_shot", trained={})
    assert 2 * sum(parts.values()) < zero < 2 * sum(parts.values()) + 4e9


def test_every_method_takes_what_its_formula_says():
    parts, shape = {"vision": 1e9, "text": 2e9}, memory.Shape(generative=False, vision_tokens=10)
    assert memory.memory(parts, shape, "zero_shot", trained={}) == 3e9 * 2 + memory.OVERHEAD
    full = memory.memory(parts, shape, "full", trained={"vision": 1e9}, scope="vision", batch=0)
    assert full == 1e9 * (16 + 2) + 2e9 * (4 + 2) + memory.OVERHEAD
    lora = memory.memory(parts, shape, "lora", trained={"adapter": 1e6}, scope="text", batch=0)
    assert lora == 3e9 * 2 + 1e6 * 16 + memory.OVERHEAD
    # No gradient passes through the vision tower: its activations are not kept.
    small = memory.memory(parts, shape, "lora", trained={}, scope="text", batch=1)
    assert small < memory.memory(parts, shape, "lora", trained={}, scope="vision+text", batch=1)


def kept_bytes(model, **inputs):
    """Return the bytes that a forward pass keeps for the backward pass, parameters apart."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        model(**inputs)
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("finetune", ["lora", "full", "connector"])
def test_the_activations_are_those_of_a_step(finetune):
    from transformers import LlamaConfig, LlamaForCausalLM

    width, slopes = 256, {}
    for layers in (2, 4):
        model: torch.nn.Module = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=width,
                intermediate_size=width * 11008 // 4096,
                num_hidden_layers=layers,
                num_attention_heads=4,
                vocab_size=64,
            )
        )
        if finetune != "full":
            model.to(torch.bfloat16).requires_grad_(False)
        if finetune == "lora":
            model = add_lora(model, MODELS_LINEAR, rank=8, alpha=16, dropout=0.05)
            for p in model.parameters():
                p.data = p.data.float() if p.requires_grad else p.data
        sizes = []
        for tokens in (128, 384):
            embedded = torch.randn(1, tokens, width, dtype=torch.bfloat16, requires_grad=True)
            labels = torch.zeros(1, tokens, dtype=torch.long)
            sizes.append(kept_bytes(model, inputs_embeds=embedded, labels=labels))
        slopes[layers] = (sizes[1] - sizes[0]) / 256
    a_layer = (slopes[4] - slopes[2]) / 2 / width
    assert a_layer == pytest.approx(memory.ACTIVATION[finetune], rel=0.25)


MODELS_LINEAR = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def test_the_whole_command_answers_in_a_fresh_process():
    start = time.monotonic()
    ran = subprocess.run([sys.executable, "-m", "vlmbench", "models"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert time.monotonic() - start < 10  # generous: the machine may be busy; process time is held above
    assert named("clip", model_files()).name == "clip"


def test_a_reader_that_has_read_enough_is_no_error():
    command = f"{sys.executable} -m vlmbench.models --json | head -1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[\n", "")
