"""Tokenizers and chat templates of the generative releases, in the files that each of them has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from releases.common import byte_bpe, sentencepiece_model, write_json

# What the published templates make of a conversation, image and text parts in a list. Long ones are cut to what one
# turn with an image uses: tools, videos and counters are left out.
_PARTS = "{{% for part in message['content'] | selectattr('type', 'equalto', '{kind}') %}}{text}{{% endfor %}}"
_IMAGES = _PARTS.format(kind="image", text="{{ '<image>\n' }}")
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    + _IMAGES
    + _PARTS.format(kind="text", text="{{ part['text'] + ' '}}")
    + "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# The assistant's turn ends with a literal misspelling of the end token in the release too.
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + _IMAGES
    + _PARTS.format(kind="text", text="{{ part['text'] }}")
    + "{{' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    + "{{ ' ' + message['content'][0]['text'] + '<\\s> '}}{% endif %}{% endfor %}"
)
ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    + _IMAGES
    + _PARTS.format(kind="text", text="{{ part['text'] }}")
    + "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CHATML = (
    "{{% for message in messages %}}{system}{{{{'<|im_start|>' + message['role'] + '\n'}}}}"
    "{{% if message['content'] is string %}}{{{{ message['content'] }}}}{{% else %}}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{{{{ '{image}' }}}}"
    "{{% elif 'text' in part %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
    "{{{{'<|im_end|>\n'}}}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{'<|im_start|>assistant\n' }}}}{{% endif %}}"
)
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_QWEN_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
)
QWEN2_VL = _CHATML.format(system=_QWEN_SYSTEM, image=_QWEN_IMAGE)
QWEN3_VL = _CHATML.format(system="", image=_QWEN_IMAGE)
INTERNVL = _CHATML.format(system="", image="<IMG_CONTEXT>\n")
GEMMA3 = (
    "{{ bos_token }}{%- set prefix = '' -%}{%- for message in messages -%}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' }}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] | trim }}{%- endif -%}{%- endfor -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


def added(content: str, *, special: bool = True) -> dict[str, Any]:
    """Return an entry of `added_tokens_decoder`."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": content, **flags, "special": special}


def _begins_with(token: str, index: int) -> dict[str, Any]:
    """Return the post-processor that writes a begin token, and writes it again where a template already did."""
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    special = {token: {"id": token, "ids": [index], "tokens": [token]}}
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, {"SpecialToken": {"id": token, "type_id": 1}}, second],
        "special_tokens": special,
    }


def write_llama_tokenizer(folder: Path, extra: Sequence[str], *, image: bool = True) -> int:
    """Write LLaMA's files with tokens added at the end; returns the vocabulary's size.

    `tokenizer.json` is in the form that transformers 4 wrote: spaces are turned by a normaliser.
    """
    from transformers import LlamaTokenizer

    sentencepiece_model(folder / "tokenizer.model", bos_id=1, eos_id=2, unk_id=0, pad_id=-1)
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra)})
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    written["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}
    written["pre_tokenizer"] = None
    write_json(path, {**written, "post_processor": _begins_with("<s>", 1)})
    base = len(tokenizer) - len(extra)
    names = {0: "<unk>", 1: "<s>", 2: "</s>", **{base + i: token for i, token in enumerate(extra)}}
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    special |= {"pad_token": "<pad>"} if "<pad>" in extra else {}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(index): added(token) for index, token in names.items()},
            "clean_up_tokenization_spaces": False,
            **special,
            **({"extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>"} if image else {}),
            "legacy": False,
            "model_max_length": 1000000000000000019884624838656,
            "padding_side": "left",
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
            "use_default_system_prompt": False,
        },
    )
    return len(tokenizer)


def write_qwen_tokenizer(folder: Path, extra: Sequence[str], **settings: Any) -> dict[str, int]:
    """Write Qwen's `vocab.json`, `merges.txt`, `tokenizer.json`; returns the ids of the added tokens."""
    from transformers import Qwen2Tokenizer

    vocab, merges = byte_bpe()
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra]
    ids = {token: len(vocab) + index for index, token in enumerate(tokens)}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): added(token) for token, index in ids.items()},
        "additional_special_tokens": tokens[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        **settings,
    }
    write_json(folder / "tokenizer_config.json", config)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return ids


def write_gemma_tokenizer(folder: Path) -> dict[str, int]:
    """Write Gemma 3's `tokenizer.model` and `tokenizer.json`; returns the ids of the named tokens."""
    from transformers import GemmaTokenizer

    turns = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"]
    spaces = ["\n", "\n\n"]
    sentencepiece_model(
        folder / "tokenizer.model",
        size=340,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="<eos>",
        user_defined_symbols=["<mask>", *turns, *spaces],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
    )
    tokenizer = GemmaTokenizer.from_pretrained(folder)
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer.add_special_tokens({"additional_special_tokens": [*turns, images["image_token"]]})
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**written, "post_processor": _begins_with("<bos>", 2)})
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *turns, images["image_token"]]
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in names}
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", {**images, **special})
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "added_tokens_decoder": {str(index): added(token) for token, index in ids.items()},
            **images,
            **special,
            "clean_up_tokenization_spaces": False,
            "extra_special_tokens": images,
            "model_max_length": 1000000000000000019884624838656,
            "processor_class": "Gemma3Processor",
            "sp_model_kwargs": None,
            "spaces_between_special_tokens": False,
            "tokenizer_class": "GemmaTokenizer",
            "use_default_system_prompt": False,
        },
    )
    write_json(folder / "added_tokens.json", {images["image_token"]: ids[images["image_token"]]})
    return ids


def write_opt_tokenizer(folder: Path) -> dict[str, int]:
    """Write OPT's files as BLIP-2 has them, `<image>` added; returns the vocabulary."""
    from transformers import GPT2Tokenizer

    learned, merges = byte_bpe()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(learned, key=learned.__getitem__)]
    vocab = {token: index for index, token in enumerate(tokens)}
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    ids = {**vocab, "<image>": len(vocab)}
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    write_json(folder / "special_tokens_map.json", special)
    named = {ids["<pad>"]: "<pad>", ids["</s>"]: "</s>", ids["<image>"]: "<image>"}
    config = {
        "add_bos_token": True,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): added(token) for index, token in named.items()},
        "clean_up_tokenization_spaces": True,
        "errors": "replace",
        "model_max_length": 1000000000000000019884624838656,
        "processor_class": "Blip2Processor",
        "tokenizer_class": "GPT2Tokenizer",
        **special,
    }
    write_json(folder / "tokenizer_config.json", config)
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "added_tokens.json", {"<image>": ids["<image>"]})
    return ids
