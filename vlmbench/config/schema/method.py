"""What is asked of a model, and how it is adapted to it: tasks and finetunes."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of

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
    """

    name: str = one_of("diagnosis", "vqa", "pretrain")
    monitor: str = one_of("val/auroc", "val/accuracy", "val/loss", default="val/loss")
    primary_metric: str = MISSING
    resamples: int = number(1000, 100, 100_000)
    confidence: float = number(0.95, 0.5, 0.999)
    evaluate_on: str = one_of("test", "val", default="test")


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

    name: str = one_of("zero_shot", "linear_probe", "lora", "full", "connector")


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
class OptimisedConfig(FinetuneConfig):
    """What every method trained by gradient steps has: AdamW with warm-up and decay.

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
class FullConfig(OptimisedConfig):
    """Every weight of the scope is trained; fields as in `LoraConfig`."""

    name: str = one_of("full", default="full")
    scope: str = MISSING
    classifier: str = one_of("linear", "text", default="linear")


@dataclass
class ConnectorConfig(OptimisedConfig):
    """Only the connector between vision tower and language model is trained."""

    name: str = one_of("connector", default="connector")
