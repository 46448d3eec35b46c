"""What every cell needs imported; the fork server imports this once. Nothing here may touch a GPU."""

import lightning
import peft
import sklearn.metrics
import torch._dynamo  # optimisers import it at their first step, which takes seconds
import transformers.models.clip
import transformers.models.llava

import vlmbench.cell.work

__all__ = ["lightning", "peft", "sklearn", "torch", "transformers", "vlmbench"]
