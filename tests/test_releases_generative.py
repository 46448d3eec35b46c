"""Every generative release loads from its own files, asks as its own processor does and answers alike in any batch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from golden_generative import NEW_TOKENS, QUESTION
from released import ANSWERS, SIZES, backbone_of, declared, released, turns_of
from releases import generative, generative_dynamic
from releases.common import sample_image
from safetensors.torch import load_file, save_file

from vlmbench.backbones.base import Turn
from vlmbench.backbones.generative import answering
from vlmbench.backbones.generative.native import IGNORE
from vlmbench.weights.release import CheckpointError

NAMES = sorted({**generative.MAKERS, **generative_dynamic.MAKERS})
# One of each architecture; the others differ in files and templates.
KINDS = ["blip2_opt", "gemma3", "internvl3", "llava", "llava_med_hf", "llava_next", "llava_onevision"]
KINDS += ["qwen25_vl", "qwen2_vl", "qwen3_vl"]
ENDS = {"llava": "</s>", "llava_next": "</s>", "gemma3": "<end_of_turn>", "blip-2": "\n"}
ENDS |= dict.fromkeys(("llava_onevision", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|im_end|>")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "generative.json").read_text(encoding="utf-8"))


def digest(tensor):
    return tensor.shape, tensor.float().numpy().tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_model_holds_the_weights_of_the_files_and_no_others(name):
    backbone = backbone_of(name)
    files = {digest(v) for path in released(name).glob("*.safetensors") for v in load_file(path).values()}
    assert {digest(value.detach()) for value in backbone.model.parameters()} == files
    parts = [prefix for prefixes in backbone.part_prefixes.values() for prefix in prefixes]
    for parameter, _ in backbone.model.named_parameters():
        assert sum(parameter.startswith(prefix) for prefix in parts) == 1, parameter


@pytest.mark.parametrize("name", NAMES)
def test_prompt_logits_and_answer_are_those_of_an_older_program_on_the_same_files(name):
    """Recorded with transformers 4.57.6 and none of this package's code: scripts/golden_generative.py."""
    backbone, recorded = backbone_of(name).eval(), GOLDEN[name]
    batch = backbone.collate([Turn(backbone.preprocess(sample_image()), QUESTION)], supervise=False)
    assert batch["input_ids"][0].tolist() == recorded["ids"]
    begin = backbone.tokenizer.bos_token_id
    assert begin is None or recorded["ids"].count(begin) == 1
    with torch.no_grad():
        logits = backbone.model(**batch).logits[0, -1, :8]
    torch.testing.assert_close(logits, torch.tensor(recorded["logits"]), rtol=1e-4, atol=1e-4)
    answer = backbone.tokenizer.decode(recorded["answer"], skip_special_tokens=True).strip()
    assert backbone.generate(batch, max_new_tokens=NEW_TOKENS) == [answer]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "blip2_opt"])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_shape_take_the_tokens_and_pixels_that_the_processor_gives_them(name, size):
    backbone, image = backbone_of(name), sample_image(*size)
    content = [{"type": "image", "image": image}, {"type": "text", "text": "is this  normal?\n"}]
    expected = backbone.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ours = backbone.collate([Turn(backbone.preprocess(image), "is this  normal?\n")], supervise=False)
    assert set(ours) == set(expected)
    for key, value in ours.items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_answer_and_the_token_that_stops_generation(name):
    backbone = backbone_of(name)
    batch = backbone.collate(turns_of(backbone), supervise=True)
    end = backbone.tokenizer.decode([backbone.end_id])
    assert end == ENDS[json.loads((released(name) / "config.json").read_text())["model_type"]]
    for row, answer in zip(batch["labels"].tolist(), ANSWERS, strict=True):
        supervised = [token for token in row if token != IGNORE]
        assert backbone.tokenizer.decode(supervised).removeprefix(" ") == f"{answer}{end}"
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE).all()
    assert (batch["labels"][batch["input_ids"] == backbone.image_token_id] == IGNORE).all()
    written = json.loads((released(name) / "generation_config.json").read_text())["eos_token_id"]
    written = written if isinstance(written, list) else [written]
    assert set(backbone.stop_ids) == {backbone.end_id, backbone.tokenizer.eos_token_id, *written}


@pytest.mark.parametrize("name", KINDS)
def test_generation_stops_at_each_end_token(name):
    backbone = backbone_of(name)
    batch = backbone.collate(turns_of(backbone, answered=False)[:1], supervise=False)
    for stop in backbone.stop_ids:
        steps: list[int] = []

        def force(module, inputs, logits, stop=stop, steps=steps):
            steps.append(1)
            return torch.nn.functional.one_hot(torch.full(logits.shape[:-1], stop), logits.shape[-1]).float()

        hook = backbone.model.get_output_embeddings().register_forward_hook(force)
        assert backbone.generate(batch, max_new_tokens=5) == [""]
        hook.remove()
        assert len(steps) == 1


@pytest.mark.parametrize(("written", "answer"), [
    ("<unused94>thought\nA rib, and a nodule.<unused95>yes", "yes"),
    ("<unused94>thought\nA rib, and", ""),
    ("no", "no"),
])  # fmt: skip
def test_a_thought_is_no_part_of_the_answer(monkeypatch, written, answer):
    backbone = backbone_of("medgemma_15")
    batch = backbone.collate(turns_of(backbone, answered=False)[:1], supervise=False)
    tokens = backbone.tokenizer(written, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(answering, "greedy", lambda *_, **__: [tokens])
    assert backbone.generate(batch, max_new_tokens=64) == [answer]


@pytest.mark.parametrize("name", KINDS)
def test_answers_and_scores_are_those_of_each_prompt_alone(name):
    backbone = backbone_of(name)
    backbone.eval()
    asked = turns_of(backbone, answered=False)
    assert len({len(backbone.prompt_ids(turn.prompt, turn.pixels.tokens)) for turn in asked}) == len(asked)
    alone = [backbone.generate(backbone.collate([turn], supervise=False), max_new_tokens=8)[0] for turn in asked]
    assert backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=8) == alone
    assert len(set(alone)) > 1
    # The release's settings for sampling do not bend what is the likeliest.
    getattr(backbone.model, "language_model", backbone.model).generation_config.repetition_penalty = 5.0
    assert backbone.generate(backbone.collate(asked, supervise=False), max_new_tokens=8) == alone
    options = [("yes", "no"), ("left", "on the right side"), ("melanoma",), ("a", "b", "c")]
    scores = backbone.score(asked, options)
    for turn, row, choices in zip(asked, scores, options, strict=True):
        for value, option in zip(row, choices, strict=False):
            batch = backbone.collate([Turn(turn.pixels, turn.prompt, option)], supervise=True)
            loss, logits = backbone.forward(batch)
            count = int((batch["labels"] != IGNORE).sum())
            torch.testing.assert_close(value, -loss.detach() * count, rtol=1e-4, atol=1e-4)
            assert len(logits) == count
            full = backbone.model(**batch)  # the checkpoint's own definition, over logits of every place
            torch.testing.assert_close(loss, full.loss, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(logits, full.logits[:, :-1][batch["labels"][:, 1:] != IGNORE])


def test_every_architecture_is_tested():
    from vlmbench.backbones.generative.family import FAMILIES

    kinds = {json.loads((released(name) / "config.json").read_text())["model_type"] for name in KINDS}
    assert kinds == set(FAMILIES)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_saved_is_a_checkpoint_that_computes_the_same(name, tmp_path):
    first = backbone_of(name).eval()
    for part in (first.model, first.processor):
        part.save_pretrained(tmp_path)
    second = backbone_of(name, tmp_path).eval()
    ours, theirs = (model.collate(turns_of(model), supervise=True) for model in (first, second))
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    with torch.no_grad():
        assert torch.equal(first.forward(ours)[1], second.forward(theirs)[1])


def test_a_checkpoint_without_a_template_asks_for_one():
    with pytest.raises(CheckpointError, match=r"Set model\.chat_template"):
        backbone_of("llava_med_hf", chat_template=None)


def test_a_template_may_be_among_the_tokenizer_s_settings(tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(released("qwen25_vl"), folder)
    template = json.loads((folder / "chat_template.json").read_text())
    (folder / "chat_template.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | template))
    backbone = backbone_of("qwen25_vl", folder)
    pixels = backbone.preprocess(sample_image())
    assert backbone.prompt_ids(QUESTION, pixels.tokens) == GOLDEN["qwen25_vl"]["ids"]


def test_a_setting_that_the_processor_does_not_have_is_refused():
    with pytest.raises(CheckpointError, match=r"model\.processor\.patchsize: LlavaProcessor"):
        backbone_of("llava", processor={"patchsize": 14})


@pytest.mark.parametrize("name", ["qwen25_vl", "internvl3", "llava"])
def test_a_misspelt_setting_of_images_is_refused(name):
    with pytest.raises(CheckpointError, match=r"model\.processor\.image_processor\.max_pixelz: .* has no such setting"):
        backbone_of(name, processor={"image_processor": {"max_pixelz": 3136}})


def test_a_question_with_the_word_of_the_images_features_is_refused():
    backbone = backbone_of("gemma3")
    with pytest.raises(ValueError, match="on whose places images stand"):
        backbone.prompt_ids("what is <image_soft_token>?", backbone.preprocess(sample_image()).tokens)


def test_weights_that_are_not_in_the_files_are_an_error(tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(released("llava"), folder)
    path = folder / "model-00001-of-00002.safetensors"
    tensors = load_file(path)
    gone = next(iter(tensors))
    del tensors[gone]
    save_file(tensors, path, metadata={"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    del index["weight_map"][gone]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="1 weights of the model are not in"):
        backbone_of("llava", folder)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen25_vl", "lingshu", "huatuogpt_vision", "qwen3_vl"])
def test_the_declared_budget_of_pixels_holds(name):
    most = declared(name)["processor"]["image_processor"]["max_pixels"]
    backbone = backbone_of(name)
    side = 32 if name == "qwen3_vl" else 28
    assert most // side**2 * 0.9 < backbone.preprocess(sample_image(1500, 1100)).tokens <= most // side**2


def test_float16_is_refused_where_it_overflows(train):
    ran = train(
        "model=gemma3", f"model.source={released('gemma3')}", "finetune=zero_shot", "trainer.precision=16-mixed"
    )
    assert ran.status != 0
    assert "gemma3 overflows in float16" in ran.err
    assert "Set trainer.precision=bf16-mixed" in ran.err


@pytest.mark.parametrize("finetune", ["zero_shot", "lora"])
@pytest.mark.parametrize("name", ["qwen25_vl", "gemma3"])
def test_a_cell_runs_from_the_command_to_the_record(train, name, finetune):
    world = ["domain=phantom_radiograph", "domain.patients=12", "domain.image_size=64", "task=vqa"]
    ran = train(f"model={name}", f"model.source={released(name)}", f"finetune={finetune}", *world)
    assert ran.status == 0, ran.err
    assert ran.record["status"] == "done"
    assert ran.predictions["prediction"].map(type).eq(str).all()
    scores = ran.predictions["option_scores"].map(len)
    assert (scores[ran.predictions["answer_type"] == "closed"] > 1).all()
    assert ("training" in ran.record and bool(ran.record["training"])) == (finetune == "lora")
