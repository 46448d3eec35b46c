"""Have the open answers of finished VQA cells judged by a language model.

python -m vlmbench.judge records=runs model=hosted_local model.source=NAME dry_run=true     # how much there is to ask
python -m vlmbench.judge records=runs model=hosted_local model.source=NAME
python -m vlmbench.judge records=runs model=hosted_local model.source=NAME profile=medvlmbench
python -m vlmbench.judge records=runs model=MODEL may_leave=true     # answers go to another machine: may they?

Writes judgements.parquet and judge.json beside each record, which the report shows. Every reply is kept as it comes
(model.cache): a run that was killed goes on where it stopped, and the same command again asks nothing.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vlmbench.config import schema
from vlmbench.config.checks import check_endpoint, check_fields
from vlmbench.config.endpoint import endpoint_name, is_local
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ConfigError

LOCAL_CACHE = "~/.cache/vlmbench/answers"  # as hosted models have it


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("judge", __doc__ or "")
    for config in composed.configs:
        check(config)
    for config in composed.configs:
        print(judge(config))
    return 0


def check(config: schema.JudgeConfig) -> None:
    """Check a configuration before anything is read.

    Raises:
        ConfigError: The model cannot judge or be asked, or nobody has said that answers may leave this machine.
    """
    check_fields(config)
    model = config.model
    if isinstance(model, schema.HostedModelConfig):
        check_endpoint(model)
        host = urlsplit(model.base_url).hostname or ""
        if not config.may_leave and not is_local(host):
            raise ConfigError(
                f"questions, reference answers and predictions would leave this machine for {host}, which the licence "
                "or agreement under which you have the data may forbid. If it allows this, say may_leave=true; else "
                "serve a model on this machine (model=hosted_local model.base_url=http://localhost:8000/v1)."
            )
        if model.settings.get("temperature") not in (None, 0):
            raise ConfigError(
                f"model.settings.temperature={model.settings['temperature']}: a judge is asked at temperature 0, or "
                "its verdicts could not be repeated. Set it to 0, or to null where the endpoint takes none."
            )
    elif not isinstance(model, schema.GenerativeModelConfig):
        raise ConfigError(f"model={model.name} is {model.kind} and writes nothing. Take a hosted or generative model.")
    elif model.loader != "hf_vlm":
        raise ConfigError(
            f"model={model.name}: its loader {model.loader} splices an image into every prompt and cannot be asked "
            "about text alone. Take a model of the loader hf_vlm, or serve one (model=hosted_local)."
        )


def judge(config: schema.JudgeConfig) -> str:
    """Judge by one configuration and return what came of it, in a few lines.

    Raises:
        UserError: Records, endpoint or weights are not as they must be; cells judged before that stay judged.
    """
    from vlmbench.hosted.answers import AnswerCache
    from vlmbench.judging.cells import Sampling
    from vlmbench.judging.judge import Judge
    from vlmbench.judging.rubric import read_rubric
    from vlmbench.judging.study import cases, judge_all, told

    rubric = read_rubric(config.profile)
    model, who = build(config)
    cache = AnswerCache(Path(getattr(config.model, "cache", LOCAL_CACHE)).expanduser())
    judging = Judge(model, rubric, cache, config.max_tokens + getattr(config.model, "extra_tokens", 0))
    sampling = Sampling(
        **{name: getattr(config, name) for name in ("skip_exact", "swap", "repeat", "controls", "seed")}
    )
    settings = {"skip_exact", "swap", "repeat", "controls", "seed", "max_tokens"}
    described = {
        "judge": who,
        "prompt": {"version": rubric.version, "sha256": rubric.sha256},
        "settings": {name: getattr(config, name) for name in sorted(settings)},
    }
    found = cases(Path(config.records), judging, sampling, described, overwrite=config.overwrite)
    print(told(found, judging), file=sys.stderr)
    if config.dry_run:
        return "nothing was asked (dry_run=true)"
    judge_all(found, judging, described, resamples=config.resamples)
    paid = judging.close()
    return (
        f"judged: {sum(not case.done for case in found):,} cells, {sum(case.done for case in found):,} were before; "
        f"{paid['answers']:,} replies paid ({paid['input_tokens']:,} tokens in, {paid['output_tokens']:,} out)"
    )


def build(config: schema.JudgeConfig) -> tuple[Any, dict[str, Any]]:
    """Return the judging model, and what identifies it in a summary.

    Raises:
        UserError: Its weights are not here.
    """
    from vlmbench.hosted.endpoint import Endpoint
    from vlmbench.judging.judge import HostedJudge
    from vlmbench.judging.local import LocalJudge

    model = config.model
    if isinstance(model, schema.HostedModelConfig):
        endpoint = Endpoint(model.base_url, model.api_key_env, timeout=model.timeout, retries=model.retries)
        hosted = HostedJudge(endpoint, model.source, model.settings, model.token_field, model.concurrency)
        return hosted, {"name": endpoint_name(model.base_url, model.source), "settings": model.settings}
    from vlmbench.backbones.generative.text_alone import reply
    from vlmbench.cell.build import build_backbone
    from vlmbench.cell.naming import name_weights

    weights = name_weights(model, config.lock)
    vlm = build_backbone(model, precision=config.precision, trains_all=False, lock=config.lock)
    local = LocalJudge(functools.partial(reply, vlm.eval()), model.name, weights, config.precision)
    return local, {"name": model.name, "settings": {"precision": config.precision, "weights": weights}}


if __name__ == "__main__":
    run(main)
