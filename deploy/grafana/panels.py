"""The few kinds of panel that the dashboards are made of. Widths and heights are in Grafana's grid of 24 columns."""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Fixed, so that the committed dashboards find the datasource that provisioning/datasources makes.
DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="bots-prometheus")

# Selected tasks are blue wherever they meet their alternative, which is grey.
BLUE, GREY, GREEN, YELLOW, RED, PURPLE = "#5794F2", "#9FA7B3", "#73BF69", "#FADE2A", "#F2495C", "#B877D9"

Queries = dict[str, str]  # legend -> expression


def query(legend: str, expression: str, ref_id: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(DATASOURCE)
        .expr(expression)
        .legend_format(legend)
        .format(PromQueryFormat.TIME_SERIES)
        .range()
        .ref_id(ref_id)
    )


def queries(expressions: Queries) -> list[prometheus.Dataquery]:
    return [query(legend, text, chr(ord("A") + number)) for number, (legend, text) in enumerate(expressions.items())]


def lines(
    title: str,
    description: str,
    expressions: Queries,
    *,
    width: int = 8,
    height: int = 8,
    unit: str = "short",
    low: float | None = None,
    high: float | None = None,
    colors: tuple[str, ...] = (),
    stacked: bool = False,
) -> timeseries.Panel:
    """Returns lines over time; `colors` go to the expressions in their order, the palette to what is left."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .targets(list(queries(expressions)))
        .span(width)
        .height(height)
        .unit(unit)
        .line_width(2)
        .fill_opacity(60 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL)).line_width(0)
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    for legend, color in zip(expressions, colors, strict=False):
        panel.override_by_name(legend, [models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})])
    return panel


def number(
    title: str,
    description: str,
    expression: str,
    *,
    width: int = 4,
    height: int = 4,
    unit: str = "short",
    decimals: int | None = None,
    steps: tuple[tuple[float | None, str], ...] = ((None, BLUE),),
) -> stat.Panel:
    """Returns the newest value in large type over its own curve. steps: (from, color), the first from None."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .targets([query(title, expression, "A")])
        .span(width)
        .height(height)
        .unit(unit)
        .no_value("-")
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=color) for value, color in steps])
        )
    )
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def heat(title: str, description: str, expression: str, legend: str, *, width: int, height: int) -> heatmap.Panel:
    """Returns a map of one row a series, in the order of the series' names, each the lower edge of its bin."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .targets([query(legend, expression, "A")])
        .span(width)
        .height(height)
        .calculate(False)
        .rows_frame(heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.GE).value("tasks"))
        .cell_values(heatmap.CellValues().unit("short").decimals(0))
        .cell_gap(0)
        .y_axis(heatmap.YAxisConfig().axis_label("pass rate").axis_placement(common.AxisPlacement.LEFT))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Viridis")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
    )


def variable(name: str, label: str, values: str, *, several: bool = False) -> dashboard.QueryVariable:
    """Returns a choice among the values of a label; `several` may be chosen, and are to begin with."""
    choice = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": values, "refId": name})
        .definition(values)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        everything = models.VariableOption(text=["All"], value=["$__all"], selected=True)
        choice.multi(True).include_all(True).all_value(".*").current(everything)
    return choice


def annotation(name: str, expression: str, color: str, title: str) -> dashboard.AnnotationQuery:
    """Returns marks at the times when the expression has a value."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .hide(False)
        .icon_color(color)
        .expr(expression)
        .step("15s")
        .title_format(title)
        .target(query("", expression, "Anno"))
    )


def page(title: str, uid: str, description: str, link: tuple[str, str]) -> dashboard.Dashboard:
    """Returns an empty dashboard; link: (title, path) of the other one."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["bots"])
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink(link[0])
            .type(models.DashboardLinkType.LINK)
            .url(link[1])
            .include_vars(True)
            .keep_time(True)
        )
    )
