"""The workspace and report at W&B: what they hold without the network, and saved through the stand-in server."""

import json
import sys

import pytest
from synthetic_study import write_study
from wandb_dashboard import TABLES_RUN, main
from wandb_server import ENTITY, serving

from vlmbench.reporting.board_tables import read_study, tables
from vlmbench.reporting.study import Settings

pytestmark = pytest.mark.xdist_group("wandb")
DOMAINS = ("phantom_radiograph", "phantom_ultrasound")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    levels = {("tiny_clip", "zero_shot"): 0.55, ("tiny_medclip", "zero_shot"): 0.75}
    levels |= {("tiny_clip", "linear_probe"): 0.8, ("tiny_medclip", "linear_probe"): 0.8}
    write_study(
        root,
        {(model, domain, method): level for (model, method), level in levels.items() for domain in DOMAINS},
        resamples=20,
    )
    return root


def test_a_dry_run_needs_no_network_and_holds_the_reports_numbers(records, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    path = tmp_path / "spec.json"
    assert main(["--records", str(records), "--dry-run", str(path), "--entity", "clinic"]) == 0
    spec = json.loads(path.read_text())
    heat = [
        dict(zip(spec["tables"]["heat_map"]["columns"], row, strict=True)) for row in spec["tables"]["heat_map"]["data"]
    ]
    study = read_study(records, Settings())
    shown = {(row.model, row.finetune, row.domain): row.primary for row in study.rows}
    assert len(heat) == len(shown) == 8
    for tile in heat:
        estimate = shown[(tile["model"], tile["method"], tile["domain"])]
        assert (tile["value"], tile["low"], tile["high"]) == (estimate.value, estimate.low, estimate.high)
    gaps = [dict(zip(spec["tables"]["gaps"]["columns"], row, strict=True)) for row in spec["tables"]["gaps"]["data"]]
    (rq1,) = [gap for gap in gaps if (gap["question"], gap["level"]) == ("rq1", "domain")]
    assert rq1["verdict"] == "worse"
    assert rq1["low"] < rq1["difference"] < rq1["high"] < 0
    told = json.dumps(spec["report"], ensure_ascii=False)
    assert rq1["sentence"] in told
    for table, chart in (("heat_map", "clinic/vlmbench_heat_map"), ("gaps", "clinic/vlmbench_gaps")):
        assert chart in told
        assert chart in json.dumps(spec["workspace"])
        assert table in told
    # Each chart draws columns that its table has.
    for name, chart in spec["charts"].items():
        columns = set(spec["tables"][name]["columns"])
        assert fields(chart) <= columns, name


def fields(spec) -> set[str]:
    """Return every field that a Vega-Lite specification names."""
    if isinstance(spec, list):
        return set().union(*map(fields, spec))
    if not isinstance(spec, dict):
        return set()
    own = {spec["field"]} if isinstance(spec.get("field"), str) else set()
    return own.union(*map(fields, spec.values()))


def test_the_front_holds_what_no_other_cell_beats(records):
    costs = tables(read_study(records, Settings()))["costs"]
    rows = [dict(zip(costs.columns, row, strict=True)) for row in costs.rows]
    for domain in DOMAINS:
        members = [row for row in rows if row["domain"] == domain]
        assert 1 <= sum(row["front"] for row in members) < len(members)
        assert max(members, key=lambda row: row["value"])["front"]
        assert min(members, key=lambda row: (row["seconds"], -row["value"]))["front"]


def test_saved_twice_it_is_one_workspace_one_report_and_one_run(records, monkeypatch, capsys):
    import wandb

    wandb.teardown()
    with serving() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        assert main(["--records", str(records)]) == 0
        first = capsys.readouterr().out.splitlines()
        urls = dict(line.split(": ", 1) for line in first[:2])
        assert set(server.runs) == {TABLES_RUN}
        assert server.runs[TABLES_RUN].attributes["jobType"] == "report"
        assert set(server.charts) == {f"{ENTITY}/vlmbench_{name}" for name in ("heat_map", "gaps", "costs")}
        again = ["--records", str(records), "--workspace", urls["workspace"], "--report", urls["report"]]
        assert main(again) == 0
        assert sorted(view["type"] for view in server.views.values()) == ["project-view", "runs"]
        assert {a.type for a in server.artifacts} == {"run_table"}
        assert len(server.artifacts) == 3
        assert set(server.runs) == {TABLES_RUN}
        assert server.errors == []
        wandb.teardown()


def test_what_is_missing_is_named(records, tmp_path, monkeypatch, capsys):
    assert main(["--records", str(tmp_path), "--dry-run", "-"]) == 2
    assert "no record.json" in capsys.readouterr().err
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["--records", str(records)]) == 2
    assert "wandb login" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "dashboard_views", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["--records", str(records), "--dry-run", "-"]) == 2
    assert "pip install 'vlmbench[dashboards]'" in capsys.readouterr().err
