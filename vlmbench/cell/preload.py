"""What every cell needs imported; the fork server imports this once. Nothing here may touch a GPU."""

import importlib
from importlib.util import find_spec

import lightning
import pyarrow.parquet
import sklearn.metrics
import torch._dynamo  # optimisers import it at their first step, which takes seconds

import vlmbench.cell.work
import vlmbench.domains.phantom.build

__all__ = ["lightning", "pyarrow", "sklearn", "torch", "vlmbench"]

#: What cells of the shipped models import; the packages around these modules import nothing by themselves.
MODELS = (
    *(f"transformers.models.clip.{part}_clip" for part in ("modeling", "processing", "image_processing_pil")),
    *(f"transformers.models.llava.{part}_llava" for part in ("modeling", "processing")),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.processing_auto"),
    *("vlmbench.backbones.contrastive.clip", "vlmbench.backbones.generative.native"),
    # It imports bitsandbytes where that is installed, which looks for GPUs: no process forked after that can use one.
    *(() if find_spec("bitsandbytes") else ("peft.utils.transformers_weight_conversion",)),
)
for name in MODELS:
    importlib.import_module(name)
