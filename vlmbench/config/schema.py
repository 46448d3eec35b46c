"""Dataclass schemas of everything that a user can set; the YAML files in `conf/` choose among these.

A field's admissible values or range are in its metadata, where `checks.check_fields` finds them, so that the schema
is the one place that says what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def one_of(*options: str, default: str = MISSING) -> Any:
    """Declare a string field that takes one of `options`."""
    return field(default=default, metadata={"choices": options})


def number(default: Any, low: float, high: float = float("inf")) -> Any:
    """Declare a numeric field with an inclusive range."""
    return field(default=default, metadata={"range": (low, high)})


# --------------------------------------------------------------------------------------------------------------- model


@dataclass
class ModelConfig:
    """A pretrained vision-language model, as its YAML file declares it.

    Attributes:
        source: Hub id (`owner/name`), a local folder in the hub's format, or `package:NAME` for a shipped checkpoint.
        revision: Commit of the hub repository; required where `trust_remote_code` is on.
        role: `generalist`, or `specialist` for one grown on medical data.
        pair: Name of the model of the other role grown from the same family.
        pretraining_modalities: Imaging modalities of the pre-training data; decides the exposure.
        download_gib: Size of the download in GiB, told to a user whose cache lacks it.
        learning_rates: Peak learning rate of each finetune method; the same on both sides of a pair.
        default_scope: Scope of a method that is given none.
    """

    name: str = MISSING
    kind: str = one_of("contrastive", "generative", "hosted")
    loader: str = MISSING
    source: str = MISSING
    revision: str | None = None
    trust_remote_code: bool = False
    role: str = one_of("generalist", "specialist")
    pair: str = ""
    family: str = ""
    pretraining_modalities: list[str] = field(default_factory=list)
    pretraining_source: str = ""
    licence: str = ""
    gated: bool = False
    download_gib: float = number(0.0, 0)
    learning_rates: dict[str, float] = field(default_factory=dict)
    default_scope: str = ""


@dataclass
class ContrastiveModelConfig(ModelConfig):
    """A dual encoder of the CLIP family."""

    kind: str = one_of("contrastive", default="contrastive")
    loader: str = one_of("hf_clip", default="hf_clip")
    default_scope: str = "vision"


@dataclass
class GenerativeModelConfig(ModelConfig):
    """A vision tower, a connector and a language model that answers in text.

    Attributes:
        chat_template: Jinja template of the conversation; null takes the checkpoint's own.
        answer_prefix: What stands between the prompt and the answer's first token, for example a space.
        max_length: Longest sequence in tokens, image tokens included; a longer one is an error, never cut.
        processor: Settings that the checkpoint's processor lacks or has wrong (patch_size, ...).
    """

    kind: str = one_of("generative", default="generative")
    loader: str = one_of("hf_llava", default="hf_llava")
    default_scope: str = "ML"
    chat_template: str | None = None
    answer_prefix: str = ""
    max_length: int = number(2048, 16)
    processor: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------------- task


@dataclass
class TaskConfig:
    """What is asked of the model, and how its answers are counted.

    Attributes:
        monitor: Validation metric that selects epochs and stops early, for example `val/auroc`.
        resamples: Bootstrap resamples behind each interval.
        confidence: Two-sided confidence of the intervals.
    """

    name: str = one_of("diagnosis", "vqa", "pretrain")
    monitor: str = one_of("val/auroc", "val/accuracy", "val/loss", default="val/loss")
    primary_metric: str = MISSING
    resamples: int = number(1000, 100, 100_000)
    confidence: float = number(0.95, 0.5, 0.999)


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
        max_new_tokens: Longest generated answer in tokens.
        likelihood: Also score the options of closed questions by log-likelihood.
    """

    name: str = one_of("vqa", default="vqa")
    monitor: str = one_of("val/accuracy", "val/loss", default="val/loss")
    primary_metric: str = one_of("accuracy", "closed_accuracy", "open_token_f1", default="accuracy")
    prompt_open: str = "{question}"
    prompt_closed: str = "{question}"
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


# ------------------------------------------------------------------------------------------------------------ finetune


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
        max_iter: Most L-BFGS iterations for one candidate.
        tolerance: Largest absolute gradient entry of the mean loss at which a candidate counts as solved.
    """

    name: str = one_of("linear_probe", default="linear_probe")
    strengths: list[float] = field(default_factory=lambda: [10.0**k for k in range(-4, 3)])
    max_iter: int = number(1000, 1)
    tolerance: float = number(1e-6, 1e-12, 1e-2)


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


# -------------------------------------------------------------------------------------------------------------- domain


@dataclass
class DomainConfig:
    """One dataset of one imaging modality.

    Attributes:
        exposure: `auto` derives it from the modality; anything else is a declaration.
        templates: Prompt templates with the placeholder `{label}`.
        label_prompts: Per label, the phrases that fill `{label}`; a label without one stands for itself. YAML and the
            command line read a bare 0 as a number, so keys may be of any type, and become text.
        negative_templates: Templates that say that a label is absent; multi-label domains need them for text prompts.
        audit_hashes: Whether the audit of the splits compares pixels too.
    """

    name: str = MISSING
    source: str = one_of("phantom", "folder", "vqa_jsonl")
    modality: str = MISSING
    exposure: str = one_of("auto", "id", "ood", "unknown", default="auto")
    licence: str = ""
    templates: list[str] = field(default_factory=lambda: ["a photo of {label}"])
    label_prompts: dict[Any, list[str]] = field(default_factory=dict)
    negative_templates: list[str] = field(default_factory=list)
    audit_hashes: bool = True

    def __post_init__(self) -> None:
        self.label_prompts = {str(label): phrases for label, phrases in self.label_prompts.items()}


@dataclass
class PhantomDomainConfig(DomainConfig):
    """Procedural images of one or, for pre-training, several modalities.

    Attributes:
        modalities: The worlds that are mixed.
        target: What a diagnosis is about.
        patients: Number of patients over all splits and, in a mixture, for each modality.
        world_seed: Another seed is another world: other patients, other images.
        image_size: Side of the square images in pixels.
        questions_per_image: For task vqa.
    """

    source: str = one_of("phantom", default="phantom")
    modalities: list[str] = MISSING
    target: str = one_of("binary", "multiclass", "multilabel", default="binary")
    patients: int = number(300, 10)
    world_seed: int = number(1, 0)
    image_size: int = number(96, 32, 1024)
    questions_per_image: int = number(2, 1, 20)


@dataclass
class TableDomainConfig(DomainConfig):
    """What both kinds of a user's own data share.

    Attributes:
        root: Folder that holds the table and the images.
        table: File name of the table within `root`.
        split_fractions: Shares of train, val and test where the table gives no split.
        on_bad_image: `stop` (default), or `leave_out` and record.
        check_images: `decode` opens every image before anything runs; `exists` only looks for the file.
        on_leak: What a group in two given splits means: `raise` an error, or `report` it in the audit.
    """

    root: str = MISSING
    table: str = MISSING
    split_fractions: list[float] = field(default_factory=lambda: [0.6, 0.15, 0.25])
    split_seed: int = number(0, 0)
    on_bad_image: str = one_of("stop", "leave_out", default="stop")
    check_images: str = one_of("decode", "exists", default="decode")
    on_leak: str = one_of("raise", "report", default="raise")


@dataclass
class FolderDomainConfig(TableDomainConfig):
    """A folder of images with a table of labels; `columns` names are the user's own.

    Attributes:
        labels: The classes in the order of the scores; empty takes what the table holds, sorted.
        label_map: Raw value to label, for tables that hold codes; keys of any type, as in `label_prompts`.
        attribute_columns: Attribute (age, sex, ...) to column.
        label_separator: Multi-label: what separates the labels within one column.
        label_columns: Multi-label: one column of 0 and 1 for each label, instead.
        id_column: Column of unique ids; null takes the image path.
    """

    source: str = one_of("folder", default="folder")
    table: str = "labels.csv"
    image_column: str = "image"
    label_column: str = "label"
    split_column: str | None = "split"
    group_column: str | None = "patient_id"
    id_column: str | None = None
    attribute_columns: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    label_map: dict[Any, str] = field(default_factory=dict)
    drop_unmapped: bool = False
    multi_label: bool = False
    label_separator: str = "|"
    label_columns: list[str] = field(default_factory=list)
    negative_templates: list[str] = field(default_factory=lambda: ["a photo without {label}"])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.label_map = {str(raw): label for raw, label in self.label_map.items()}


@dataclass
class VqaJsonlDomainConfig(TableDomainConfig):
    """A folder of images with one question a line in JSON; the field names are the user's own."""

    source: str = one_of("vqa_jsonl", default="vqa_jsonl")
    table: str = "qa.jsonl"
    id_field: str | None = "id"
    image_field: str = "image"
    question_field: str = "question"
    answer_field: str = "answer"
    answer_type_field: str | None = "answer_type"
    options_field: str | None = "options"
    split_field: str | None = "split"
    group_field: str | None = None
    attribute_fields: dict[str, str] = field(default_factory=dict)


# ----------------------------------------------------------------------------------------- trainer, logger, sweep, cell


@dataclass
class TrainerConfig:
    """The budget and the machine.

    Attributes:
        max_epochs: Most passes over the training split.
        max_steps: Most optimiser steps; -1 for no such limit.
        patience: Epochs without a better validation metric before training stops.
        precision: Lightning's name for the arithmetic.
        num_workers: Processes that decode images; 0 decodes in the training process.
        eval_batch_size: Batch size of validation, prediction and encoding.
    """

    max_epochs: int = number(20, 1)
    max_steps: int = number(-1, -1)
    batch_size: int = number(32, 1)
    eval_batch_size: int = number(64, 1)
    accumulate_grad_batches: int = number(1, 1)
    gradient_clip_val: float = number(1.0, 0)
    precision: str = one_of("32-true", "bf16-mixed", "16-mixed", default="32-true")
    patience: int = number(5, 1)
    accelerator: str = one_of("auto", "cpu", "gpu", "cuda", "mps", default="auto")
    num_workers: int = number(0, 0, 256)


@dataclass
class LoggerConfig:
    """Where curves and results are shown besides the record."""

    name: str = one_of("none", "wandb", default="none")


@dataclass
class WandbLoggerConfig(LoggerConfig):
    """One Weights & Biases run a cell.

    Attributes:
        mode: `online`, `offline` (sync later), or `disabled`.
        folder: Where the run's files go; null puts them into the cell's own directory.
    """

    name: str = one_of("wandb", default="wandb")
    project: str = "vlmbench"
    entity: str | None = None
    mode: str = one_of("online", "offline", "disabled", default="online")
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    folder: str | None = None


@dataclass
class SweepConfig:
    """The grid that a multirun names.

    Attributes:
        name: `none` outside a grid.
        jobs: Cells that run at the same time on this machine.
    """

    name: str = "none"
    jobs: int = number(1, 1, 64)


@dataclass
class CellConfig:
    """One point of the grid: model, task, finetune, domain, seed; plus how and where it is run.

    Attributes:
        seed: Seeds initialisation, the order of the batches and dropout.
        output: Directory under which each cell has its own.
        deterministic: Ask torch for deterministic algorithms, so that a run repeats exactly.
    """

    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    finetune: FinetuneConfig = MISSING
    domain: DomainConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    seed: int = number(0, 0, 2**32 - 1)
    output: str = "runs"
    deterministic: bool = True


@dataclass
class EvaluateConfig:
    """A finished cell taken to another domain without further training.

    Attributes:
        cell: Directory of the finished cell.
        overwrite: Compute again where the record is already there.
    """

    cell: str = MISSING
    domain: DomainConfig = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    overwrite: bool = False


@dataclass
class ReportConfig:
    """Records in, one page out.

    Attributes:
        records: Directory searched for records, at any depth.
        output: Directory of the page, the CSV file and the LaTeX tables.
        title: Heading of the page.
    """

    records: str = "runs"
    output: str = "report"
    title: str = "vlmbench report"
