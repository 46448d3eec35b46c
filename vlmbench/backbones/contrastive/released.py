"""BERT and residual networks, as releases of codes that no longer install have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vlmbench.weights.release import Release, native, need

# LoRA's places in transformers' `BertModel`; in a residual network they are the convolutions of its blocks, where PEFT
# puts a k x k convolution of low rank and a 1 x 1 one behind it.
BERT_LINEAR = r"\.encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|((attention\.)?output|intermediate)\.dense)"
RESNET_CONVOLUTION = r"\.layer\d\.\d+\.(conv\d|downsample\.0)"


def bert(state: Mapping[str, Tensor], release: Release, path: Path) -> tuple[Any, Any]:
    """Return a `BertModel` of the configuration in the companion `text`, and its tokenizer.

    Lower case, whatever the vocabulary: the releases have no `tokenizer_config.json`, and that was the default of the
    transformers that they were trained with.

    Raises:
        CheckpointError: The companion is not there, or `path` holds other weights.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = need(release.companions.get("text"), "the configuration and vocabulary of BERT", "companions.text")
    model = native(BertModel, BertConfig.from_pretrained(folder), state, path)
    return model, AutoTokenizer.from_pretrained(folder, do_lower_case=True)
