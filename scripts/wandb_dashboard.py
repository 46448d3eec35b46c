"""Build a project's W&B workspace and report from records: heat map, gaps, costs, curves.

python scripts/wandb_dashboard.py --records runs --project vlmbench --dry-run spec.json   # no network
python scripts/wandb_dashboard.py --records runs --project vlmbench --entity clinic
python scripts/wandb_dashboard.py --records runs --upload   # also the run of every cell that W&B should have
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vlmbench.config.schema import WandbLoggerConfig
from vlmbench.errors import UserError
from vlmbench.reporting.board_tables import Table, read_study, tables
from vlmbench.reporting.dashboards import show
from vlmbench.reporting.findings import find
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.telling import statement

TABLES_RUN = "vlmbench-report"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path("runs"), help="directory searched for records")
    parser.add_argument("--project", default="vlmbench", help="W&B project of the runs")
    parser.add_argument("--entity", help="user or team that owns it; your default one where it is left out")
    parser.add_argument("--dry-run", metavar="FILE", help="write what would be sent as JSON, - for stdout; no network")
    parser.add_argument("--upload", action="store_true", help="send every finished cell and transfer as a run too")
    parser.add_argument("--workspace", metavar="URL", help="bring this workspace up to date instead of making one")
    parser.add_argument("--report", metavar="URL", help="bring this report up to date instead of making one")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    asked = arguments(given)
    try:
        views = _views()
        study = read_study(asked.records, Settings())
        made = tables(study)
        if asked.dry_run:
            _write(asked, views, study, made)
        else:
            _send(asked, views, study, made)
    except UserError as error:
        print(f"wandb_dashboard: {error}", file=sys.stderr)
        return 2
    return 0


def sentences(study: Study) -> dict[str, list[str]]:
    """Return the verdicts in words by research question: the broadest of each."""
    findings = find(study)
    told: dict[str, list[str]] = {}
    for one in findings.verdicts:
        if one.level == "question" or one in findings.overall(one.question, one.task):
            told.setdefault(one.question.title, []).append(statement(one, findings))
    return told


def _views() -> Any:
    try:
        import dashboard_views
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'vlmbench[dashboards]'") from error
    return dashboard_views


def _write(asked: argparse.Namespace, views: Any, study: Study, made: dict[str, Table]) -> None:
    entity = asked.entity or "entity"
    spec = {
        "workspace": views.spec_of(views.workspace(entity, asked.project, made)),
        "report": views.spec_of(views.report(entity, asked.project, made, sentences(study))),
        "charts": views.chart_specs(),
        "tables": {name: {"columns": table.columns, "data": table.rows} for name, table in made.items()},
    }
    text = json.dumps(spec, indent=1, allow_nan=False)
    if asked.dry_run == "-":
        print(text)
    else:
        Path(asked.dry_run).write_text(text + "\n", encoding="utf-8")


def _send(asked: argparse.Namespace, views: Any, study: Study, made: dict[str, Table]) -> None:
    import wandb

    try:
        api = wandb.Api()
        entity = asked.entity or api.default_entity
    except Exception as error:
        raise UserError(
            f"W&B cannot be reached ({error}). Log in with `wandb login`, or use --dry-run FILE."
        ) from error
    if not entity:
        raise UserError("W&B knows no default entity of yours; name one with --entity.")
    try:
        if asked.upload:
            _upload(asked, entity, study)
        _send_tables(asked.project, entity, views.REPORT_JOB, made)
        for name, spec in views.chart_specs().items():
            _make_chart(api, entity, views.CHARTS[name], spec)
        _save(asked, entity, views, study, made)
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(
            f"W&B did not take it: {error}. What was sent before stays; the command can be run again."
        ) from error


def _send_tables(project: str, entity: str, job: str, made: dict[str, Table]) -> None:
    """Put the tables into the summary of one run, where they replace those of the last time."""
    import wandb

    with wandb.init(
        project=project,
        entity=entity,
        id=TABLES_RUN,
        name="tables of the report",
        resume="allow",
        job_type=job,
        settings=wandb.Settings(silent=True, console="off"),
    ) as run:
        sent = {key: wandb.Table(list(made[key].columns), [list(row) for row in made[key].rows]) for key in made}
        run.summary.update(sent)


def _make_chart(api: Any, entity: str, name: str, spec: dict[str, Any]) -> None:
    import wandb

    try:
        api.create_custom_chart(entity, name, name.replace("_", " "), "vega2", "private", spec)
    except wandb.Error as error:
        print(f"chart {name} is not made anew ({error}); the one that is there is shown.", file=sys.stderr)


def _save(asked: argparse.Namespace, entity: str, views: Any, study: Study, made: dict[str, Table]) -> None:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    workspace = views.workspace(entity, asked.project, made)
    report = views.report(entity, asked.project, made, sentences(study))
    if asked.workspace:
        known = ws.Workspace.from_url(asked.workspace)
        known.sections, known.runset_settings = workspace.sections, workspace.runset_settings
        workspace = known
    if asked.report:
        found = wr.Report.from_url(asked.report)
        found.blocks = report.blocks
        report = found
    workspace.save()
    report.save()
    print(f"workspace: {workspace.url}\nreport: {report.url}")
    print(f"To bring them up to date later: --workspace '{workspace.url}' --report '{report.url}'")


def _upload(asked: argparse.Namespace, entity: str, study: Study) -> None:
    config = WandbLoggerConfig(project=asked.project, entity=entity, folder=str(asked.records / "wandb_upload"))
    done = [row for row in study.rows if row.done]
    sent = sum(show(config, row.record, study.folder(row), study.folder(row).name) for row in done)
    print(f"{sent} of {len(done)} finished cells and transfers sent")


if __name__ == "__main__":
    sys.exit(main())
