"""What is asked of a model, and how it is adapted to it: tasks and finetunes."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of
from vlmbench.config.schema.prompts import PromptsConfig

CHOICE = "{question}\n{choices}\nAnswer with the letter of the right option."


@dataclass
class TaskConfig:
    """What is asked of the model, and how its answers are counted.

    Attributes:
        monitor: Validation metric that selects epochs and stops early, for example `val/auroc`.
        resamples: Bootstrap resamples behind each interval.
        confidence: Two-sided confidence of the intervals.
        evaluate_on: Split that is predicted in the end. With `val` the test split is not touched: the record is that of
            a trial, which a report leaves out and no other domain is taken to.
        prompts: Candidates, of which validation chooses one.
    """

    name: str = one_of("diagnosis", "vqa", "pretrain")
    monitor: str = one_of("val/auroc", "val/accuracy", "val/loss", default="val/loss")
    primary_metric: str = MISSING
    resamples: int = number(1000, 100, 100_000)
    confidence: float = number(0.95, 0.5, 0.999)
    evaluate_on: str = one_of("test", "val", default="test")
    prompts: PromptsConfig = field(default_factory=PromptsConfig)


@dataclass
class DiagnosisTaskConfig(TaskConfig):
    """Name the finding; scores for every label.

    Attributes:
        question: What a generative model is asked; `{modality}` and `{options}` are filled in.
        question_multi_label: The same for one label of several, `{label}` filled in, answered yes or no.
    """

    name: str = one_of("diagnosis", default="diagnosis")
    monitor: str = one_of("val/auroc", "val/accuracy", "val/loss", default="val/auroc")
    primary_metric: str = one_of("auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", default="auroc")
    question: str = "Which of these does the {modality} image show: {options}?"
    question_multi_label: str = "Does the {modality} image show {label}?"


@dataclass
class VqaTaskConfig(TaskConfig):
    """Answer open and closed questions.

    Attributes:
        prompt_open: Prompt of an open question; `{question}` is filled in.
        prompt_closed: Prompt of a closed one; `{question}` and `{options}` are filled in.
        prompt_choice: Prompt of a multiple choice question; `{question}` and `{choices}`, the options one a line under
            letters, are filled in. It asks for the letter, which is what is trained on; the option's text counts too.
        max_new_tokens: Longest generated answer in tokens.
        likelihood: Also score the options of closed questions by log-likelihood.
    """

    name: str = one_of("vqa", default="vqa")
    monitor: str = one_of("val/accuracy", "val/loss", default="val/loss")
    primary_metric: str = one_of("accuracy", "closed_accuracy", "open_token_f1", default="accuracy")
    prompt_open: str = "{question}"
    prompt_closed: str = "{question}"
    prompt_choice: str = CHOICE
    max_new_tokens: int = number(32, 1, 4096)
    likelihood: bool = True


@dataclass
class PretrainTaskConfig(TaskConfig):
    """Learn from captions: contrastive pairs for dual encoders, captioning for generative models.

    Attributes:
        instruction: What a generative model is asked for a caption.
    """

    name: str = one_of("pretrain", default="pretrain")
    monitor: str = one_of("val/loss", default="val/loss")
    primary_metric: str = one_of("loss", default="loss")
    instruction: str = "Describe the image."


@dataclass
class FinetuneConfig:
    """How a model is adapted."""

    name: str = one_of(
        *("zero_shot", "linear_probe", "lp_text", "coop", "clip_adapter", "lora", "qlora", "full", "connector"),
    )


@dataclass
class ZeroShotConfig(FinetuneConfig):
    """Off the shelf."""

    name: str = one_of("zero_shot", default="zero_shot")


@dataclass
class LinearProbeConfig(FinetuneConfig):
    """A linear classifier on frozen features, solved to convergence.

    Attributes:
        strengths: Candidates for C, the inverse strength of the L2 penalty as in scikit-learn; chosen on validation.
        max_iter: Most L-BFGS iterations for one candidate, in float32 and again in float64; the record says which
            candidates needed more.
        tolerance: Largest absolute gradient entry of the mean loss at which a candidate counts as solved. At ten times
            the default, a weak penalty on separable classes ends with an objective more than 1e-4 (relative) too high.
    """

    name: str = one_of("linear_probe", default="linear_probe")
    strengths: list[float] = field(default_factory=lambda: [10.0**k for k in range(-4, 3)])
    max_iter: int = number(1000, 1)
    tolerance: float = number(1e-7, 1e-12, 1e-2)


@dataclass
class LpTextConfig(FinetuneConfig):
    """A linear probe informed by text, on frozen embeddings; nothing is drawn (see `vlmbench.tuning.lp_text`).

    Attributes:
        form: `lppp` is LP++ (Huang et al., CVPR 2024, arXiv 2404.02285); `medical` its form of Shakeri et al.,
            MICCAI 2024, arXiv 2409.03868, which differs in the steps that the prototypes take.
        iterations: Steps on the prototypes; validation chooses among the iterates.
    """

    name: str = one_of("lp_text", default="lp_text")
    form: str = one_of("lppp", "medical", default="lppp")
    iterations: int = number(300, 1, 100_000)


@dataclass
class OptimisedConfig(FinetuneConfig):
    """What every method trained by gradient steps has: AdamW, unless it says otherwise, with warm-up and decay.

    Attributes:
        lr: Peak learning rate; the YAML files take it from the model's `learning_rates`.
        warmup: Share of the optimiser steps over which the learning rate rises.
        schedule: How it falls afterwards.
    """

    lr: float | None = number(None, 0, 1)
    weight_decay: float = number(0.0, 0, 1)
    warmup: float = number(0.05, 0, 1)
    schedule: str = one_of("cosine", "linear", "constant", default="cosine")


@dataclass
class LoraConfig(OptimisedConfig):
    """Low-rank adapters (Hu et al., ICLR 2022, arXiv 2106.09685).

    Attributes:
        scope: Parts that are adapted: `vision`, `text`, `vision+text`; or a union of the letters V, M, L.
        rank: Rank of the update.
        alpha: The update is scaled by alpha / rank.
        dropout: Dropout before the down projection.
        classifier: Contrastive models: a `linear` head, or the `text` prompts as classifier.
        connector: Scope M of a generative model: train the connector in `full`, as LLaVA's recipe does, or by `lora`.
    """

    name: str = one_of("lora", default="lora")
    scope: str = MISSING
    rank: int = number(8, 1, 1024)
    alpha: float = number(16.0, 0)
    dropout: float = number(0.05, 0, 0.9)
    classifier: str = one_of("linear", "text", default="linear")
    connector: str = one_of("full", "lora", default="full")


@dataclass
class QloraConfig(LoraConfig):
    """LoRA on a language model that is frozen in 4 bits (Dettmers et al., NeurIPS 2023, arXiv 2305.14314).

    Vision tower, connector and output layer keep their precision. Fields as in `LoraConfig`, and:

    Attributes:
        scope: A union of the letters V, M, L that has L; scope M trains the connector as in `LoraConfig`.
        optimiser: `adamw`; or `paged_adamw`, the same with states that go to the host's memory while a GPU has no room
            for them (section 3). It needs a GPU.
    """

    name: str = one_of("qlora", default="qlora")
    rank: int = number(16, 1, 1024)
    alpha: float = number(32.0, 0)
    optimiser: str = one_of("adamw", "paged_adamw", default="adamw")


@dataclass
class FullConfig(OptimisedConfig):
    """Every weight of the scope is trained; fields as in `LoraConfig`."""

    name: str = one_of("full", default="full")
    scope: str = MISSING
    classifier: str = one_of("linear", "text", default="linear")


@dataclass
class ConnectorConfig(OptimisedConfig):
    """Only the connector between vision tower and language model is trained."""

    name: str = one_of("connector", default="connector")


@dataclass
class CoopConfig(OptimisedConfig):
    """Learned context vectors in the prompts (CoOp, Zhou et al., IJCV 2022, arXiv 2109.01134).

    The paper trains by SGD with momentum 0.9 and weight decay 5e-4, at 0.002 falling by a cosine, after one epoch at
    1e-5; here the learning rate rises over `warmup` instead.

    Attributes:
        context_length: Number of context vectors.
        words: What the context says at first, for example `a photo of a`, and its length with it; empty draws
            `context_length` vectors.
        class_specific: A context for each class instead of one for all; it goes to no domain with other labels.
        optimiser: `sgd`, or `adamw` as the other methods have it.
    """

    name: str = one_of("coop", default="coop")
    context_length: int = number(16, 1, 64)
    words: str = ""
    class_specific: bool = False
    weight_decay: float = number(5e-4, 0, 1)
    optimiser: str = one_of("sgd", "adamw", default="sgd")


@dataclass
class ClipAdapterConfig(OptimisedConfig):
    """A bottleneck on the image embedding (CLIP-Adapter, Gao et al., IJCV 2024, arXiv 2110.04544).

    Attributes:
        reduction: The bottleneck's width is the embedding's divided by this.
        ratio: How much of the adapter's output is mixed into the embedding.
        optimiser: `sgd` with momentum 0.9 as in the authors' code, or `adamw` as the other methods have it.
    """

    name: str = one_of("clip_adapter", default="clip_adapter")
    reduction: int = number(4, 1, 1024)
    ratio: float = number(0.2, 1e-6, 1)
    weight_decay: float = number(5e-4, 0, 1)
    optimiser: str = one_of("sgd", "adamw", default="sgd")
