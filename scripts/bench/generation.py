"""Time answering a VQA split against asking one question at a time, and scoring options against a row for each option.

    python scripts/bench/generation.py [--questions 192] [--repetitions 3] [--device cuda --small] [--json FILE]

Ours is the path of a cell: its loader, its module, its batches. The baseline of the answers is what the study does, the
checkpoint's own processor and `model.generate` for each question; that of the scores, a batch of rows with each option
written out. Images are decoded before; both sides preprocess them. In float32 the tokens of every answer and the scores
must be the same. The row of LLaVA-7B's sizes has random weights in bfloat16 and says which share of the answers is.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import Row, arguments_of, finish, in_turn
from PIL import Image
from torch.utils.data import DataLoader

from vlmbench.backbones.base import Turn, device_of
from vlmbench.backbones.generative import answering
from vlmbench.backbones.generative.native import IGNORE, HfVlm
from vlmbench.backbones.loaders import load
from vlmbench.domains.base import Domain
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.domains.phantom.build import build_phantom
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.prompting import vqa
from vlmbench.weights.source import ASSETS

ASK = vqa("{question}", "{question}", "{question}\n{choices}")


@dataclass
class Decoded:
    """Images that are decoded already."""

    held: Mapping[str, Image.Image]

    def load(self, key: str) -> Image.Image:
        """Return an image."""
        return self.held[key]


@dataclass
class Bench:
    """A model and what it is asked.

    Attributes:
        backbone: The model.
        domain: Its test split is asked.
        batch: Rows of a batch of ours.
        new_tokens: Most tokens of an answer.
    """

    backbone: HfVlm
    domain: Domain
    batch: int
    new_tokens: int

    def ours(self, likelihood: bool = False) -> tuple[dict[int, list[int]], dict[int, list[float]]]:
        """Return the tokens of each answer and the scores of each question's options."""
        module = GenerativeModule(self.backbone, ASK, mode="vqa", max_new_tokens=self.new_tokens, likelihood=likelihood)
        tokens: dict[int, list[int]] = {}
        scores: dict[int, list[float]] = {}
        with answers_noted() as noted:
            for rows in self._batches(module):
                columns = module.predict_step(rows, 0)
                tokens |= dict(zip(columns["index"], noted.pop(), strict=True))
                scores |= dict(zip(columns["index"], columns["option_scores"], strict=True))
        synchronised(self.backbone)
        return tokens, scores

    @torch.no_grad()
    def one_at_a_time(self) -> dict[int, list[int]]:
        """Return the tokens of each answer, every question asked by itself the way transformers documents."""
        model, processor = self.backbone.model, self.backbone.processor
        answers = {}
        for index, example in enumerate(self.domain.split("test")):
            content = [{"type": "image"}, {"type": "text", "text": ASK(example)[0].prompt}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            inputs = processor(images=self.domain.images.load(example.image), text=text, return_tensors="pt")
            inputs = inputs.to(device_of(model), model.dtype)
            out = model.generate(**inputs, max_new_tokens=self.new_tokens, do_sample=False)
            tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
            processor.decode(tokens, skip_special_tokens=True)
            ends = [place for place, token in enumerate(tokens) if token in self.backbone.stop_ids]
            answers[index] = tokens[: ends[0]] if ends else tokens
        return answers

    @torch.no_grad()
    def row_for_each_option(self) -> dict[int, list[float]]:
        """Return the scores of each question's options, each option written out behind its question."""
        images: dict[str, Any] = {}
        rows: list[tuple[int, Turn]] = []
        scores: dict[int, list[float]] = {}
        for index, example in enumerate(self.domain.split("test")):
            (query,), key = ASK(example), example.image
            scores[index] = []
            if query.options and key not in images:
                images[key] = self.backbone.preprocess(self.domain.images.load(key))
            rows += [(index, Turn(images[key], query.prompt, option)) for option in query.options]
        for start in range(0, len(rows), self.batch):
            chunk = rows[start : start + self.batch]
            batch = self.backbone.collate([turn for _, turn in chunk], supervise=True)
            labels = batch.pop("labels")[:, 1:].to(device_of(self.backbone.model))
            inputs = {key: value.to(device_of(self.backbone.model)) for key, value in batch.items()}
            logits = self.backbone.model(**inputs).logits[:, :-1].log_softmax(-1)
            each = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != IGNORE)
            for (index, _), value in zip(chunk, each.sum(-1).tolist(), strict=True):
                scores[index].append(value)
        return scores

    @torch.no_grad()
    def scored(self) -> dict[int, list[float]]:
        """Return ours of the same: each prompt read once, its options behind it."""
        scores: dict[int, list[float]] = {}
        batches = self._batches(GenerativeModule(self.backbone, ASK, mode="vqa"))
        closed = [row for rows in batches for row in rows if ASK(row[1])[0].options]
        for start in range(0, len(closed), self.batch):
            rows = closed[start : start + self.batch]
            queries = [ASK(example)[0] for _, example, _ in rows]
            turns = [Turn(row[2], query.prompt, image=row[1].image) for row, query in zip(rows, queries, strict=True)]
            values = self.backbone.score(turns, [query.options for query in queries])
            for row, query, own in zip(rows, queries, values, strict=True):
                scores[row[0]] = own[: len(query.options)].tolist()
        synchronised(self.backbone)
        return scores

    def _batches(self, module: GenerativeModule) -> DataLoader[Any]:
        size = self.batch
        data = DomainDataModule(self.domain, self.backbone.preprocess, batch_size=size, eval_batch_size=size)
        data.arrange = module.arrange
        return data.arranged("test", module.collate_eval)


@contextmanager
def answers_noted() -> Any:
    """Yield a list that gets the tokens of each batch of answers."""
    noted: list[list[list[int]]] = []
    greedy = answering.greedy

    def note(*args: Any, **kwargs: Any) -> list[list[int]]:
        noted.append(greedy(*args, **kwargs))
        return noted[-1]

    answering.greedy = note
    try:
        yield noted
    finally:
        answering.greedy = greedy


def synchronised(backbone: HfVlm) -> None:
    """Wait for what a GPU still computes."""
    if device_of(backbone.model).type == "cuda":
        torch.cuda.synchronize()


def questions(patients: int, count: int, each: int) -> Domain:
    """Return a phantom domain with `count` questions in its test split, `each` about an image where it has so many."""
    domain = build_phantom(
        "bench", "ultrasound", "vqa", n_patients={"train": 1, "val": 1, "test": patients}, questions_per_image=each
    )
    examples = domain.split("test")[:count]
    held = {example.image: domain.images.load(example.image) for example in examples}
    return replace(domain, examples=list(examples), images=Decoded(held))


def large(device: str, small: bool) -> HfVlm:
    """Return a LLaVA 1.5 of 7 billion parameters with random weights; a small one to try the script."""
    import transformers as hf

    side, patch = (56, 14) if small else (336, 14)
    sizes = {"image_size": side, "patch_size": patch, "projection_dim": 64}
    vision: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    text: dict[str, Any] = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 16}, {"num_attention_heads": 32, "vocab_size": 32064}
    if small:
        vision = text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2}, {"num_attention_heads": 2, "vocab_size": 1024}
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, **heads[0], **sizes),
        text_config=hf.LlamaConfig(**text, **heads[1], max_position_embeddings=4096, bos_token_id=0, eos_token_id=1),
        image_token_index=3,
        image_seq_length=(side // patch) ** 2,
    )
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = hf.LlavaForConditionalGeneration(config)
        torch.set_default_dtype(torch.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(ASSETS / "tiny_llava", Path(name) / "model"))
        settings = json.loads((folder / "processor_config.json").read_text())
        settings["patch_size"] = patch
        settings["image_processor"] |= {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
        (folder / "processor_config.json").write_text(json.dumps(settings))
        processor = hf.AutoProcessor.from_pretrained(folder)
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return HfVlm(model.eval(), processor)


def same_tokens(ours: Mapping[int, list[int]], theirs: Mapping[int, list[int]]) -> float:
    """Return the share of the answers that are the same token for token."""
    if ours.keys() != theirs.keys():
        raise AssertionError("not the same questions were answered")
    return sum(ours[index] == theirs[index] for index in ours) / len(ours)


def on_cpu(count: int, repetitions: int) -> list[Row]:
    """Return the rows of tiny_llava: answers, scores, and both at once."""
    backbone: HfVlm = load("hf_vlm", str(ASSETS / "tiny_llava"), dtype=torch.float32, answer_prefix=" ").eval()
    bench = Bench(backbone, questions(max(2, count // 3), count, 2), batch=32, new_tokens=32)
    asked = f"CPU, tiny_llava, {len(bench.domain.split('test'))} questions, float32"

    def all_equal(ours: Any, theirs: Mapping[int, list[int]]) -> None:
        share = same_tokens(ours[0], theirs)
        if share < 1:
            raise AssertionError(f"only {share:.4f} of the answers are token for token the same")

    worst = [0.0]

    def near(ours: Mapping[int, Sequence[float]], theirs: Mapping[int, Sequence[float]]) -> None:
        for index, values in theirs.items():
            for one, other in zip(ours.get(index, []), values, strict=True):
                worst[0] = max(worst[0], abs(one - other))
        if worst[0] > 1e-4:
            raise AssertionError(f"a score differs by {worst[0]:.2e}")

    answers = Row(4, "generation in sorted batches", "one question at a time", asked, "all tokens", bar="3x")
    scores = Row(4, "options behind a prompt that is read once", "a row for each option", asked, "")
    both = Row(4, "answers and option scores together", "one question at a time, then a row for each option", asked, "")
    in_turn(bench.ours, bench.one_at_a_time, 1, all_equal)  # the first calls of a process are slower
    timed = in_turn(bench.ours, bench.one_at_a_time, repetitions, all_equal)
    in_turn(bench.scored, bench.row_for_each_option, 1, near)
    rows = [timed.into(answers), in_turn(bench.scored, bench.row_for_each_option, repetitions, near).into(scores)]

    def check_both(ours: Any, theirs: Any) -> None:
        all_equal(ours, theirs[0])
        near(ours[1], theirs[1])

    rows.append(
        in_turn(
            lambda: bench.ours(likelihood=True),
            lambda: (bench.one_at_a_time(), bench.row_for_each_option()),
            repetitions,
            check_both,
        ).into(both)
    )
    scores.equal, both.equal = f"scores within {worst[0]:.0e}", f"all tokens, scores within {worst[0]:.0e}"
    return rows


def on_device(device: str, small: bool, count: int, repetitions: int) -> Row:
    """Return the row of LLaVA-7B's sizes, in bfloat16."""
    row = Row(
        4,
        "generation in sorted batches",
        "one question at a time",
        f"{device}, LLaVA-7B sizes",
        "",
        bar="" if small else "10x",
    )
    if device == "cuda" and not torch.cuda.is_available():
        row.note = "not measured: no GPU here"
        return row
    backbone = large(device, small)
    bench = Bench(backbone, questions(max(2, count // 5), count, 7), batch=32, new_tokens=8 if small else 16)
    images = {example.image for example in bench.domain.split("test")}
    name = torch.cuda.get_device_name() if device == "cuda" else device
    row.where = f"{name}, LLaVA {'tiny' if small else '7B'} sizes, {count} questions on {len(images)} images, bfloat16"
    shares: list[float] = []
    warm = replace(bench, domain=replace(bench.domain, examples=list(bench.domain.split("test"))[:4]))
    warm.ours(), warm.one_at_a_time()

    def note(ours: Any, theirs: Mapping[int, list[int]]) -> None:
        shares.append(same_tokens(ours[0], theirs))

    in_turn(bench.ours, bench.one_at_a_time, repetitions, note).into(row)
    row.equal = f"{min(shares):.1%} of the answers token for token; random weights"
    return row


def main() -> None:
    """Check, time, print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--questions", type=int, default=192)
    parser.add_argument("--device", default="cuda", help="of the row of LLaVA-7B's sizes")
    parser.add_argument("--small", action="store_true", help="a tiny model in the place of LLaVA-7B")
    parser.add_argument("--device-only", action="store_true", help="that row alone")
    arguments = parser.parse_args()
    rows = [] if arguments.device_only else on_cpu(arguments.questions, arguments.repetitions)
    count = 32 if arguments.small else 96
    rows.append(on_device(arguments.device, arguments.small, count, arguments.repetitions))
    finish(rows, arguments.json)


if __name__ == "__main__":
    main()
