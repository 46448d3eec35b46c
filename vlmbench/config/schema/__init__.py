"""Dataclass schemas of everything that a user can set; the YAML files in `conf/` choose among these.

The schema is the one place that says what is allowed.
"""

from vlmbench.config.schema.cell import (
    CellConfig,
    EvaluateConfig,
    FetchConfig,
    LoggerConfig,
    ReportConfig,
    SweepConfig,
    TrainerConfig,
    WandbLoggerConfig,
)
from vlmbench.config.schema.domain import (
    CaptionsJsonlDomainConfig,
    DomainConfig,
    FolderDomainConfig,
    PhantomDomainConfig,
    TableDomainConfig,
    VqaJsonlDomainConfig,
)
from vlmbench.config.schema.judge import JudgeConfig
from vlmbench.config.schema.method import (
    ClipAdapterConfig,
    ConnectorConfig,
    CoopConfig,
    DiagnosisTaskConfig,
    FinetuneConfig,
    FullConfig,
    LinearProbeConfig,
    LoraConfig,
    LpTextConfig,
    OptimisedConfig,
    PretrainTaskConfig,
    QloraConfig,
    TaskConfig,
    VqaTaskConfig,
    ZeroShotConfig,
)
from vlmbench.config.schema.model import (
    ContrastiveModelConfig,
    FilesConfig,
    GenerativeModelConfig,
    HostedModelConfig,
    ModelConfig,
)
from vlmbench.config.schema.predict import PredictConfig
from vlmbench.config.schema.prompts import PromptsConfig
from vlmbench.config.schema.published import DownloadConfig, LabelRuleConfig, PublishedDomainConfig
from vlmbench.config.schema.questions import QuestionsConfig

__all__ = [
    "CaptionsJsonlDomainConfig",
    "CellConfig",
    "ClipAdapterConfig",
    "ConnectorConfig",
    "ContrastiveModelConfig",
    "CoopConfig",
    "DiagnosisTaskConfig",
    "DomainConfig",
    "DownloadConfig",
    "EvaluateConfig",
    "FetchConfig",
    "FilesConfig",
    "FinetuneConfig",
    "FolderDomainConfig",
    "FullConfig",
    "GenerativeModelConfig",
    "HostedModelConfig",
    "JudgeConfig",
    "LabelRuleConfig",
    "LinearProbeConfig",
    "LoggerConfig",
    "LoraConfig",
    "LpTextConfig",
    "ModelConfig",
    "OptimisedConfig",
    "PhantomDomainConfig",
    "PredictConfig",
    "PretrainTaskConfig",
    "PromptsConfig",
    "PublishedDomainConfig",
    "QloraConfig",
    "QuestionsConfig",
    "ReportConfig",
    "SweepConfig",
    "TableDomainConfig",
    "TaskConfig",
    "TrainerConfig",
    "VqaJsonlDomainConfig",
    "VqaTaskConfig",
    "WandbLoggerConfig",
    "ZeroShotConfig",
]
