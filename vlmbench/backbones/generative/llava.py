"""LLaVA (Liu et al., 2023, arXiv 2304.08485) and its descendants that keep transformers' LLaVA class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import Turn, device_of

IGNORE = -100  # the label that torch's cross-entropy leaves out
_LINEAR = {
    "V": r"self_attn\.(q|k|v|out)_proj|mlp\.fc[12]",
    "L": r"self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj",
}


class HfLlava(nn.Module):
    """A `LlavaForConditionalGeneration` with its own processor.

    Args:
        model: The network.
        processor: Its `LlavaProcessor`; its tokenizer names the image token.
        chat_template: Jinja template; None takes the processor's own.
        answer_prefix: What stands between the prompt and the answer's first token.
        max_length: Longest row in tokens, image tokens included.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("model.vision_tower.",),
        "connector": ("model.multi_modal_projector.",),
        "language": ("model.language_model.", "lm_head."),
    }

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        chat_template: str | None = None,
        answer_prefix: str = "",
        max_length: int = 2048,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.chat_template = chat_template
        self.answer_prefix = answer_prefix
        self.max_length = max_length
        config: Any = model.config
        self.config = config
        self.image_token_id = int(config.image_token_index)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def image_tokens(self) -> int:
        """Tokens that one image takes in the sequence: its patches and, unless dropped, the tower's class token."""
        vision = self.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + (not vision.model_type.startswith("siglip"))
        # "default" drops the first token, whatever it is.
        return tokens - 1 if self.config.vision_feature_select_strategy == "default" else tokens

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) by the checkpoint's own image processor."""
        return self.processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Return the tokens of a conversation up to where the model answers, image tokens expanded."""
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        kwargs = {"chat_template": self.chat_template} if self.chat_template else {}
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False, **kwargs
        )
        image_token = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        if text.count(image_token) != 1:
            raise ValueError(
                f"The prompt holds {text.count(image_token)} image tokens {image_token!r} instead of one: {text!r}. "
                "Check model.chat_template and that no question contains the token."
            )
        text = text.replace(image_token, image_token * self.image_tokens)
        # A template may already write the begin token; the tokenizer would write a second one.
        bos = self.tokenizer.bos_token
        return self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens of an answer and the end token."""
        ids = self.tokenizer(self.answer_prefix + answer, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def collate(self, turns: Sequence[Turn], *, supervise: bool) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (B, T), `pixel_values` (B, 3, H, W) and, if supervised, `labels`.

        Prompt and answer are tokenised apart and joined, so that the prompt is token for token the one that
        generation sees, and the labels are exactly the answer and the end token.

        Raises:
            ValueError: A row exceeds `max_length`; cutting it could cut image tokens or the answer.
        """
        rows, labels = [], []
        for turn in turns:
            prompt = self.prompt_ids(turn.prompt)
            answer = self.answer_ids(turn.answer) if supervise else []
            if len(prompt) + len(answer) > self.max_length:
                raise ValueError(
                    f"A row of {len(prompt) + len(answer)} tokens ({self.image_tokens} of them for the image) exceeds "
                    f"model.max_length={self.max_length}: {turn.prompt[:80]!r}. Raise it or shorten the question."
                )
            rows.append(prompt + answer)
            labels.append([IGNORE] * len(prompt) + answer)
        length = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id

        def padded(values: list[list[int]], fill: int) -> Tensor:
            blank = [[fill] * (length - len(row)) for row in values]
            joined = [row + b if supervise else b + row for row, b in zip(values, blank, strict=True)]
            return torch.tensor(joined, dtype=torch.long)

        batch = {
            "input_ids": padded(rows, pad),
            "attention_mask": padded([[1] * len(row) for row in rows], 0),
            "pixel_values": torch.stack([turn.pixels for turn in turns]),
        }
        if supervise:
            batch["labels"] = padded(labels, IGNORE)
        return batch

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy over supervised tokens, and the logits (B, T, vocabulary)."""
        out = self.model(**self._placed(batch))
        return out.loss, out.logits

    @torch.no_grad()
    def generate(self, batch: Mapping[str, Tensor], *, max_new_tokens: int) -> list[str]:
        """Return the greedy answers to left-padded prompts, without special tokens or outer white space."""
        inputs = self._placed(batch)
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            # A checkpoint's sampling settings do not apply to greedy decoding and would only warn.
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    @torch.no_grad()
    def score(self, turns: Sequence[Turn], options: Sequence[Sequence[str]]) -> Tensor:
        """Return the summed log-likelihood (B, O) of each option and its end token as the answer; -inf pads rows."""
        out = torch.full((len(turns), max(len(row) for row in options)), -torch.inf)
        cells = [(b, o) for b, row in enumerate(options) for o in range(len(row))]
        for start in range(0, len(cells), max(1, len(turns))):
            chunk = cells[start : start + max(1, len(turns))]
            rows = [Turn(turns[b].pixels, turns[b].prompt, options[b][o]) for b, o in chunk]
            batch = self.collate(rows, supervise=True)
            labels = batch.pop("labels")[:, 1:]
            logits = self.model(**self._placed(batch)).logits[:, :-1].float()
            chosen = labels.clamp(min=0).to(logits.device)
            token_scores = logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
            sums = (token_scores * (labels != IGNORE).to(logits.device)).sum(-1).cpu()
            for (b, o), value in zip(chunk, sums, strict=True):
                out[b, o] = value
        return out

    def lora_targets(self, scope: str) -> str:
        """Return the pattern of the Linear layers of the vision tower (V) and the language model (L) in `scope`.

        Vision layers above the one whose features the connector reads get no gradient and are left out.
        """
        patterns = []
        if "V" in scope:
            layers = "|".join(str(index) for index in range(self._vision_layers()))
            patterns.append(rf"model\.vision_tower\.encoder\.layers\.({layers})\.({_LINEAR['V']})")
        if "L" in scope:
            patterns.append(rf"model\.language_model\.layers\.\d+\.({_LINEAR['L']})")
        return "|".join(f"({pattern})" for pattern in patterns)

    def connector_targets(self) -> str:
        """Return the pattern of the connector's Linear layers."""
        return r"model\.multi_modal_projector\.linear_[12]"

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names of the parameters of `scope` that the loss reaches."""
        parts = {"V": "vision", "M": "connector", "L": "language"}
        wanted = tuple(prefix for letter in scope for prefix in self.part_prefixes[parts[letter]])
        names = [name for name, _ in self.model.named_parameters() if name.startswith(wanted)]
        return [name for name in names if self._reached(name)]

    def save_pretrained(self, folder: str) -> None:
        """Write the checkpoint in the hub's format."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _placed(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device, dtype = device_of(self.model), self.model.dtype
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in batch.items()}

    def _vision_layers(self) -> int:
        layers, selected = self.config.vision_config.num_hidden_layers, self.config.vision_feature_layer
        deepest = max(selected) if isinstance(selected, list | tuple) else selected
        # hidden_states[0] is the embedding: hidden_states[k] is what layer k-1 leaves.
        return int(deepest) if deepest >= 0 else layers + 1 + int(deepest)

    def _reached(self, name: str) -> bool:
        tower = "model.vision_tower."
        if not name.startswith(tower):
            return True
        rest = name.removeprefix(tower)
        if rest.startswith("encoder.layers."):
            return int(rest.split(".")[2]) < self._vision_layers()
        return not rest.startswith("post_layernorm")


def load_llava(
    located: str,
    *,
    revision: str | None,
    dtype: torch.dtype,
    chat_template: str | None = None,
    answer_prefix: str = "",
    max_length: int = 2048,
    processor_settings: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> HfLlava:
    """Load a LLaVA checkpoint in transformers' format.

    Args:
        located: Folder or hub id.
        revision: Commit of the hub id.
        dtype: Type of the weights.
        chat_template: As `HfLlava`.
        answer_prefix: As `HfLlava`.
        max_length: As `HfLlava`.
        processor_settings: Attributes of the processor that the checkpoint lacks or has wrong.
        trust_remote_code: Passed to the processor; refused by the configuration unless the commit is pinned.
    """
    from transformers import AutoImageProcessor, LlavaForConditionalGeneration, LlavaProcessor

    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    model = LlavaForConditionalGeneration.from_pretrained(located, revision=revision, dtype=dtype, weights_only=True)
    processor = LlavaProcessor.from_pretrained(located, **common)
    # Pinned: torchvision and PIL resize to different pixels, and whichever is installed would otherwise decide.
    processor.image_processor = AutoImageProcessor.from_pretrained(located, backend="pil", **common)
    for key, value in dict(processor_settings or {}).items():
        setattr(processor, key, value)
    return HfLlava(model, processor, chat_template=chat_template, answer_prefix=answer_prefix, max_length=max_length)
