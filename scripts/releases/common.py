"""What the makers of small checkpoints share: weights, texts, tokenizers of each kind, and an image."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = (
    "a photo of a nodule in the upper left lung",
    "this is a photo of consolidation on a chest radiograph",
    "is there a pleural effusion? yes, on the right side.",
    "What abnormality does the image show? Answer with one word.",
    "USER: describe the image. ASSISTANT: a retinal fundus with drusen and haemorrhages",
    "histology of adenocarcinoma, melanoma, benign keratosis, glaucoma and pneumonia",
    "The quick brown fox jumps over 13 lazy dogs; 0 1 2 3 4 5 6 7 8 9!",
)


def fill(state: Mapping[str, torch.Tensor], scale: float = 0.05) -> dict[str, torch.Tensor]:
    """Return weights of the same names, shapes and types, drawn from numpy's generator seeded by each name.

    The same under every version of torch, so that an older program can be given exactly these weights. Norms are drawn
    around one, integer buffers are kept.
    """
    out = {}
    for name, value in state.items():
        if not value.is_floating_point():
            out[name] = value.clone()
            continue
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        is_norm = value.ndim == 1 and name.endswith("weight")
        drawn = torch.from_numpy(np.asarray(draw * scale + is_norm, dtype=np.float32))
        out[name] = drawn.to(value.dtype).reshape(value.shape).contiguous()
    return out


def sample_image(width: int = 120, height: int = 96) -> Image.Image:
    """Return an RGB image of gradients and noise; not square, so that cropping and padding show."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    ramps = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    return Image.fromarray(((ramps * 3 + noise) // 4).astype(np.uint8))


def write_json(path: Path, value: Any) -> None:
    """Write JSON as the hub's files are, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def save_sharded(state: Mapping[str, torch.Tensor], folder: Path, shards: int = 2) -> None:
    """Write `model-0000i-of-0000n.safetensors` and their index, as large releases are."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    for number, names in enumerate(np.array_split(sorted(state), shards), start=1):
        shard = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file({str(name): state[name].contiguous() for name in names}, folder / shard, metadata={"format": "pt"})
        index |= {str(name): shard for name in names}
    size = sum(value.nbytes for value in state.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": index})


def save_pickled(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a `.bin` or `.pth` as older releases are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)


def wordpiece(size: int = 200) -> Tokenizer:
    """Return BERT's tokenizer (WordPiece, lower case) over the corpus's characters and first whole words.

    Not trained: the trainer breaks ties differently in each run, and recorded outputs need one vocabulary.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = [word for text in CORPUS for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words])
    vocab = {piece: number for number, piece in enumerate(list(pieces)[:size])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def write_bert_tokenizer(folder: Path, size: int = 200) -> int:
    """Write `vocab.txt` and `tokenizer_config.json` as BERT releases have; returns the vocabulary's size."""
    vocab = wordpiece(size).get_vocab()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    return len(vocab)


def byte_bpe(size: int = 360) -> tuple[dict[str, int], list[str]]:
    """Return `vocab` and `merges` of a byte-level BPE (GPT-2, OPT, Qwen) trained on the corpus, no special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [row if isinstance(row, str) else " ".join(row) for row in model["merges"]]
    return model["vocab"], merges


def sentencepiece_model(
    path: Path, size: int = 330, *, kind: str = "bpe", byte_fallback: bool = True, **settings: Any
) -> None:
    """Write a SentencePiece model (`tokenizer.model`, `spiece.model`) trained on the corpus.

    Args:
        path: The file.
        size: Vocabulary; with byte fallback 256 of it are bytes.
        kind: `bpe` (LLaMA, Mistral, Gemma) or `unigram` (SigLIP's T5 vocabulary).
        byte_fallback: Whether unknown characters become bytes.
        settings: Further trainer settings, for example `pad_id`.
    """
    import sentencepiece

    path.parent.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_prefix=str(path.with_suffix("")),
        vocab_size=size,
        model_type=kind,
        byte_fallback=byte_fallback,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    path.with_suffix(".vocab").unlink()
    trained = path.with_suffix(".model")
    if trained != path:
        trained.rename(path)
