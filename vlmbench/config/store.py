"""Registration of the schemas with Hydra, and where the YAML files are."""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from vlmbench.config import schema

SCHEMAS: dict[str, type] = {
    "schema/cell": schema.CellConfig,
    "schema/fetch": schema.FetchConfig,
    "schema/evaluate": schema.EvaluateConfig,
    "schema/report": schema.ReportConfig,
    "schema/questions": schema.QuestionsConfig,
    "schema/judge": schema.JudgeConfig,
    "schema/bertscore": schema.BertscoreConfig,
    "schema/predict": schema.PredictConfig,
    "schema/model/contrastive": schema.ContrastiveModelConfig,
    "schema/model/generative": schema.GenerativeModelConfig,
    "schema/model/hosted": schema.HostedModelConfig,
    "schema/task/diagnosis": schema.DiagnosisTaskConfig,
    "schema/task/vqa": schema.VqaTaskConfig,
    "schema/task/pretrain": schema.PretrainTaskConfig,
    "schema/finetune/zero_shot": schema.ZeroShotConfig,
    "schema/finetune/linear_probe": schema.LinearProbeConfig,
    "schema/finetune/lp_text": schema.LpTextConfig,
    "schema/finetune/coop": schema.CoopConfig,
    "schema/finetune/clip_adapter": schema.ClipAdapterConfig,
    "schema/finetune/lora": schema.LoraConfig,
    "schema/finetune/qlora": schema.QloraConfig,
    "schema/finetune/full": schema.FullConfig,
    "schema/finetune/connector": schema.ConnectorConfig,
    "schema/domain/phantom": schema.PhantomDomainConfig,
    "schema/domain/folder": schema.FolderDomainConfig,
    "schema/domain/vqa_jsonl": schema.VqaJsonlDomainConfig,
    "schema/domain/captions_jsonl": schema.CaptionsJsonlDomainConfig,
    "schema/domain/published": schema.PublishedDomainConfig,
    "schema/trainer": schema.TrainerConfig,
    "schema/logger/none": schema.LoggerConfig,
    "schema/logger/wandb": schema.WandbLoggerConfig,
    "schema/sweep": schema.SweepConfig,
}


def register() -> None:
    """Make every schema available to YAML files as `/schema/...@_here_`."""
    store = ConfigStore.instance()
    for path, node in SCHEMAS.items():
        group, _, name = path.rpartition("/")
        store.store(group=group, name=name, node=_open(node), provider="vlmbench")


def _open(schema_of: type) -> DictConfig:
    """Return a schema whose mappings take further keys from the command line without Hydra's `+`."""
    node = OmegaConf.structured(schema_of)
    for key in list(node):
        if not OmegaConf.is_missing(node, key) and OmegaConf.get_type(node, str(key)) is dict:
            OmegaConf.set_struct(node[key], False)
    return node


def conf_dir() -> Path:
    """Return the directory of the YAML files: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"
