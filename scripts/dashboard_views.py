"""W&B's workspace and report of a project, and the Vega-Lite charts that they show; built without the network."""

from __future__ import annotations

from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from vlmbench.reporting.board_tables import Table

REPORT_JOB = "report"  # job type of the run that holds the tables
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
CHARTS = {
    "heat_map": "vlmbench_heat_map",
    "gaps": "vlmbench_gaps",
    "costs": "vlmbench_costs",
}
STEP = "trainer/global_step"
WIDE = wr.Layout(w=24, h=16)
# In the order of the table, and whole: Vega cuts names off at 180 pixels.
NAMES = {"type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 460}}
# Ink on viridis, which is dark below and light above the middle of its values.
LIGHT = {"condition": {"test": "datum.value > datum.middle", "value": "black"}, "value": "white"}
# Okabe and Ito's colours, and a shape besides.
VERDICTS = {"better": "#0072B2", "worse": "#D55E00", "equivalent": "#009E73", "cannot tell": "#999999"}


def chart_specs() -> dict[str, dict[str, Any]]:
    """Return the Vega-Lite specification of each table's chart."""
    value = {"field": "value", "type": "quantitative"}
    told = [{"field": name} for name in ("line", "domain", "exposure", "value", "low", "high", "seeds", "note")]
    tile = {
        "x": {"field": "domain", "type": "nominal", "title": None},
        "y": {"field": "line", **NAMES},
    }
    heat = {
        "transform": [
            {
                "joinaggregate": [
                    {"op": "min", "field": "value", "as": "least"},
                    {"op": "max", "field": "value", "as": "most"},
                ]
            },
            {"calculate": "(datum.least + datum.most) / 2", "as": "middle"},
        ],
        "encoding": tile,
        "layer": [
            {"mark": "rect", "encoding": {"color": {**value, "scale": {"scheme": "viridis"}}, "tooltip": told}},
            {
                "mark": {"type": "text", "fontSize": 10},
                "encoding": {"text": {**value, "format": ".3f"}, "color": LIGHT},
            },
            {  # in distribution: the model's pre-training covered the modality
                "transform": [{"filter": "datum.exposure === 'id'"}],
                "mark": {"type": "text", "dx": 22, "dy": -3, "fontSize": 10, "text": "†"},
                "encoding": {"color": LIGHT},
            },
        ],
        "width": {"step": 90},
    }
    zero = {"condition": {"test": "datum.value === 0", "value": "black"}, "value": "#dddddd"}
    span = {"type": "quantitative", "title": "common minus medical model", "axis": {"gridColor": zero}}
    by_verdict = {"field": "verdict", "scale": {"domain": list(VERDICTS), "range": list(VERDICTS.values())}}
    gaps = {
        "encoding": {"y": {"field": "label", **NAMES}},
        "layer": [
            {"mark": "rule", "encoding": {"x": {"field": "low", **span}, "x2": {"field": "high"}}},
            {
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": {
                    "x": {"field": "difference", **span},
                    "color": by_verdict,
                    "shape": {"field": "verdict", "scale": {"domain": list(VERDICTS)}},
                    "tooltip": [{"field": "sentence"}, {"field": "low"}, {"field": "high"}],
                },
            },
        ],
        "width": 420,
    }
    x = {"field": "seconds", "type": "quantitative", "scale": {"type": "log"}, "title": "seconds in all"}
    costs = {
        "facet": {"column": {"field": "domain", "title": None}},
        "spec": {
            "encoding": {"x": x, "y": {**value, "scale": {"zero": False}, "title": "primary metric"}},
            "layer": [
                {
                    "transform": [{"filter": "datum.front"}],
                    "mark": {"type": "line", "interpolate": "step-after", "color": "#999999"},
                },
                {
                    "mark": {"type": "rule"},
                    "encoding": {
                        "y": {"field": "low", "type": "quantitative", "title": "primary metric"},
                        "y2": {"field": "high"},
                    },
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 60},
                    "encoding": {
                        "color": {"field": "method"},
                        "shape": {"field": "role"},
                        "tooltip": [{"field": name} for name in ("model", "method", "value", "low", "high", "seconds")],
                    },
                },
            ],
        },
    }
    common = {"$schema": SCHEMA, "data": {"name": "wandb"}}
    return {name: {**common, **spec} for name, spec in (("heat_map", heat), ("gaps", gaps), ("costs", costs))}


def chart_panel(entity: str, table: str) -> wr.CustomChart:
    """Return the panel that draws a table of the project's report run."""
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=f"{entity}/{CHARTS[table]}",
        chart_fields={},
        chart_strings={},
        layout=WIDE,
    )


def curve_panels() -> list[Any]:
    """Return the panels that follow the cells as they run."""
    curves = [wr.LinePlot(title=name, x=STEP, y=[name]) for name in ("train/loss", "val/auroc", "val/accuracy")]
    primary = wr.SummaryMetric("primary")
    cost = [
        wr.ScatterPlot(title="Primary metric by cost", x=wr.SummaryMetric(name), y=primary, log_x=True)
        for name in ("cost/trainable_parameters", "seconds/total")
    ]
    bars = wr.BarPlot(title="Primary metric by model", metrics=["primary"], groupby=wr.Config("cell.model"))
    return [*curves, *cost, bars]


def workspace(entity: str, project: str, made: dict[str, Table]) -> ws.Workspace:
    """Return the project's workspace: the report's tables on top, the cells' own curves and costs below."""
    charts = ws.Section(name="Results", panels=[chart_panel(entity, name) for name in made], is_open=True)
    cells = ws.Section(name="Cells", panels=curve_panels(), is_open=True)
    columns = ["summary:primary", "summary:primary_low", "summary:primary_high", "summary:status", "summary:exposure"]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="vlmbench",
        sections=[charts, cells],
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *columns]),
    )


def report(entity: str, project: str, made: dict[str, Table], sentences: dict[str, list[str]]) -> wr.Report:
    """Return the project's report.

    Args:
        entity: Who owns it.
        project: Where the runs are.
        made: The tables that its charts draw.
        sentences: Of each research question that was asked, the verdicts in words.
    """
    # Without a project a run set is of the report's own, and nothing is looked up.
    runs = wr.Runset(name="Tables", filters=expr.And(expr.Metric("JobType") == REPORT_JOB))
    cells = wr.Runset(name="Cells", filters=expr.And(expr.Metric("JobType") != REPORT_JOB))

    def drawn(name: str) -> list[Any]:
        if name not in made:
            return [wr.P(f"No {name.replace('_', ' ')}: the records hold nothing for it.")]
        table = wr.WeavePanelSummaryTable(table_name=name, layout=WIDE)
        return [wr.PanelGrid(runsets=[runs], panels=[chart_panel(entity, name), table])]

    blocks: list[Any] = [wr.TableOfContents(), wr.H1("The answers")]
    for title, told in sentences.items():
        blocks += [wr.H2(title), wr.UnorderedList(items=told)]
    blocks += [
        wr.H1("Model, method and domain"),
        wr.P("† in distribution: the model's pre-training covered the modality. The table holds every interval."),
        *drawn("heat_map"),
        wr.H1("Gaps"),
        wr.P("Common minus medical model, with the interval of the difference; the line is no difference."),
        *drawn("gaps"),
        wr.H1("Cost beside accuracy"),
        wr.P("The grey line joins the cells that no other one beats in both."),
        *drawn("costs"),
        wr.H1("The cells"),
        wr.PanelGrid(runsets=[cells], panels=curve_panels()),
    ]
    return wr.Report(project=project, entity=entity, title="vlmbench report", blocks=blocks, width="fluid")


def spec_of(view: Any) -> dict[str, Any]:
    """Return what W&B stores of a workspace or report, as plain values."""
    return dict(view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True))
