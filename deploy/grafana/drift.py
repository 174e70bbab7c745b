"""Difficulty drift: how hard the data is for the policy now, how that moves, and whether selection pays."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, annotation, heat, lines, number, page, variable

Panels = list[Builder[Panel]]

RUN = 'dataset="$dataset", run="$run"'
INTERVAL = "$__rate_interval"


def state(name: str, labels: str = "") -> str:
    """Returns a gauge of the run, for which every server that holds it exports the same value."""
    return f"max by (dataset, run{labels}) (bots_run_{name}{{{RUN}}})"


def grown(name: str, window: str = INTERVAL) -> str:
    """Returns the increase of a counter of the run in a window, by the server that saw the largest."""
    return f"max by (dataset, run) (increase(bots_run_{name}_total{{{RUN}}}[{window}]))"


def per_outcome(name: str, window: str = INTERVAL, outcomes: str = "outcomes") -> str:
    """Returns a mean over the outcomes reported in a window; no value if there were none."""
    return f"{grown(name, window)} / ({grown(outcomes, window)} > 0)"


def done(name: str, window: str = INTERVAL) -> str:
    """Returns the rate of a counter of what the servers did for the run, summed over servers."""
    return f"sum by (dataset, run) (rate(bots_run_{name}_total{{{RUN}}}[{window}]))"


def saved(window: str) -> str:
    """Returns the rollouts that uniform selection would have needed in a window for as many effective tasks, less those
    that were spent: rollouts * (effective task ratio / that of uniform selection - 1)."""
    uniform = f"avg_over_time(bots_run_uniform_effective_task_ratio{{{RUN}}}[{window}])"
    ratio = per_outcome("effective_outcomes", window)
    return f"{grown('rollouts', window)} * ({ratio} / max by (dataset, run) ({uniform}) - 1)"


def drift() -> dashboard.Dashboard:
    board = (
        page(
            "BOTS: difficulty drift",
            "bots-drift",
            "How hard the data is for the policy now, how that drifts, and whether selection pays.",
            ("Service", "/d/bots-service"),
        )
        .with_variable(variable("dataset", "Dataset", "label_values(bots_run_version, dataset)"))
        .with_variable(variable("run", "Run", 'label_values(bots_run_version{dataset="$dataset"}, run)'))
        .annotation(
            annotation(
                "Restores",
                f"max by (dataset, run) (changes(bots_run_restores_total{{{RUN}}}[1m])) > 0",
                PURPLE,
                "Run restored to an earlier state",
            )
        )
        .annotation(
            annotation(
                "Undos",
                f"max by (dataset, run) (changes(bots_run_undos_total{{{RUN}}}[1m])) > 0",
                RED,
                "Report undone",
            )
        )
        .annotation(
            annotation(
                "Hyperparameters",
                f"max by (dataset, run) (changes(bots_run_hyperparameter_changes_total{{{RUN}}}[1m])) > 0",
                YELLOW,
                "Hyperparameters changed",
            )
        )
    )
    for panel in (*at_a_glance(), *difficulty(), *gain(), *prediction(), *progress()):
        board.with_panel(panel)
    return board


def at_a_glance() -> Panels:
    return [
        number(
            "In reach",
            "Share of tasks with posterior mean from 0.1 to 0.9: those from which the policy can learn now.",
            state("in_reach_ratio"),
            unit="percentunit",
            decimals=1,
            steps=((None, RED), (0.1, YELLOW), (0.25, GREEN)),
        ),
        number(
            "Mean pass rate",
            "Mean of the posterior means over all tasks.",
            state("mean_pass_rate"),
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Effective task ratio",
            "Share of the recent outcomes whose rollouts did not all get the same reward. Only those give a "
            "group-normalised gradient.",
            state("recent_effective_task_ratio"),
            unit="percentunit",
            decimals=1,
            steps=((None, RED), (0.2, YELLOW), (0.5, GREEN)),
        ),
        number(
            "Rollouts saved",
            "In the time shown: rollouts that uniform selection would have needed beyond those spent, for as many "
            "effective tasks. Expected under the posterior, which is near the middle if there is little evidence, so "
            "this is a low estimate. Below 0: uniform selection would have been cheaper.",
            saved("$__range"),
            decimals=0,
            steps=((None, RED), (0, GREEN)),
        ),
        number(
            "Prediction error",
            "Mean distance of the posterior mean before the outcome from the observed pass rate, recently.",
            state("recent_absolute_error"),
            decimals=3,
            steps=((None, GREEN), (0.25, YELLOW), (0.4, RED)),
        ),
        number(
            "Coverage",
            "Share of the tasks that were evaluated at least once.",
            state("coverage_ratio"),
            unit="percentunit",
            decimals=1,
        ),
    ]


def difficulty() -> Panels:
    return [
        heat(
            "Posterior means over time",
            "Tasks by posterior mean pass rate: each column is all tasks of the dataset at one time, from too hard "
            "(bottom) to solved (top). Brighter: more tasks.",
            state("tasks", ", pass_rate"),
            "{{pass_rate}}",
            width=16,
            height=10,
        ),
        lines(
            "Solved, in reach, too hard",
            "Share of tasks with posterior mean above 0.9, from 0.1 to 0.9, and below 0.1.",
            {
                "too hard": state("too_hard_ratio"),
                "in reach": state("in_reach_ratio"),
                "solved": state("solved_ratio"),
            },
            height=10,
            unit="percentunit",
            low=0,
            high=1,
            colors=(RED, BLUE, GREEN),
            stacked=True,
        ),
    ]


def gain() -> Panels:
    theirs = state("recent_shadow_selected_effective_task_ratio")
    error = state("recent_shadow_selected_standard_error")
    return [
        lines(
            "Effective task ratio: selected and uniform",
            "Share of recent outcomes whose rollouts did not all get the same reward, against what uniform selection "
            "would get now with as many rollouts a task, expected under the posterior (a high estimate, because the "
            "posterior is near the middle if there is little evidence).",
            {
                "selected": state("recent_effective_task_ratio"),
                "uniform (expected)": state("uniform_effective_task_ratio"),
            },
            unit="percentunit",
            width=6,
            low=0,
            high=1,
            colors=(BLUE, GREY),
        ),
        lines(
            "Shadow mode: the trainer's selection and BOTS's",
            "Reports in shadow mode: effective task ratio of the tasks that the trainer selected, recently, and the "
            "estimate for the tasks that BOTS would have selected in their place, with two standard errors. Empty: no "
            "trainer is in shadow mode.",
            {
                "trainer": state("recent_shadow_effective_task_ratio"),
                "BOTS (estimated)": theirs,
                "+ 2 standard errors": f"{theirs} + 2 * {error}",
                "- 2 standard errors": f"{theirs} - 2 * {error}",
            },
            unit="percentunit",
            width=6,
            low=0,
            high=1,
            colors=(BLUE, GREEN, GREY, GREY),
        ),
        lines(
            "Rollouts per effective task",
            "Rollouts spent for each effective task. The difference of the two is what selection saves.",
            {
                "selected": per_outcome("rollouts", outcomes="effective_outcomes"),
                "uniform (expected)": f"{per_outcome('rollouts')} / {state('uniform_effective_task_ratio')}",
            },
            width=6,
            low=0,
            colors=(BLUE, GREY),
        ),
        lines(
            "Policy and target",
            "Capability (interpolation): the policy between the weak (0) and the strong (1) reference. Ability "
            "(item_response): mean predicted logit over all tasks. And the pass rate that selection aims at, and the "
            "mean of the posterior means.",
            {
                "capability": state("capability"),
                "ability": state("ability"),
                "target": f'max by (dataset, run) (bots_run_hyperparameter{{{RUN}, hyperparameter="target"}})',
                "mean pass rate": state("mean_pass_rate"),
            },
            width=6,
            colors=(PURPLE, GREEN, GREY, BLUE),
        ),
    ]


def prediction() -> Panels:
    tag = f"bots_run_tag_mean_pass_rate{{{RUN}}}[$__range] @ end()"
    return [
        lines(
            "Prediction error: posterior and implicit",
            "Mean |predicted - observed pass rate| before the outcome was applied: of the posterior mean, and of the "
            "prediction without the task's own outcomes. If the second stays high, the dataset's columns do not tell "
            "difficulty.",
            {
                "posterior mean": per_outcome("absolute_error"),
                "implicit": per_outcome("implicit_absolute_error", outcomes="implicit_outcomes"),
                "posterior mean, Brier": per_outcome("squared_error"),
            },
            low=0,
            colors=(BLUE, PURPLE, GREY),
        ),
        lines(
            "Implicit estimate: AUC and correlation",
            "Of the prediction without the task's own outcomes, recently (paper, Figure 5). AUC: how well it ranks "
            "rollouts by success; 0.5 is chance. Correlation: with the observed pass rates.",
            {"AUC": state("recent_implicit_auc"), "correlation": state("recent_implicit_correlation")},
            high=1,
            colors=(PURPLE, BLUE),
        ),
        lines(
            "Calibration",
            "Mean observed pass rate of recent outcomes, by the lower edge of the bin of their predicted pass rate. "
            "Well calibrated: each line lies in its own tenth.",
            {"{{pass_rate}}": state("recent_observed_pass_rate", ", pass_rate")},
            unit="percentunit",
            low=0,
            high=1,
        ),
        lines(
            "Item response: what the columns explain",
            "Share of the variance of predicted difficulty that the dataset's columns explain, and the standard "
            "deviation of a task's own difficulty that they do not, in logits. item_response only.",
            {
                "explained": state("explained_ratio"),
                "own difficulty": f"sqrt({state('residual_variance')})",
            },
            width=12,
            low=0,
            colors=(BLUE, GREY),
        ),
        lines(
            "Mean pass rate by tag",
            "Mean of the posterior means over the tasks of a tag, of the 10 tags that moved most. Tags that fall are "
            "being forgotten; tags that stay at 0 or 1 teach nothing.",
            {
                "{{tag}}": f"{state('tag_mean_pass_rate', ', tag')} and on (dataset, run, tag) topk(10, "
                f"max by (dataset, run, tag) (max_over_time({tag}) - min_over_time({tag})))"
            },
            width=12,
            unit="percentunit",
        ),
    ]


def progress() -> Panels:
    return [
        lines(
            "Rollouts and tasks a minute",
            "Rollouts reported, and tasks selected, a minute. Selections without reports: a trainer is stuck, or its "
            "reports fail.",
            {
                "rollouts reported": f"60 * max by (dataset, run) (rate(bots_run_rollouts_total{{{RUN}}}[{INTERVAL}]))",
                "tasks reported": f"60 * max by (dataset, run) (rate(bots_run_outcomes_total{{{RUN}}}[{INTERVAL}]))",
                "tasks selected": f"60 * {done('selected_tasks')}",
            },
            width=6,
            low=0,
            colors=(GREEN, BLUE, YELLOW),
        ),
        lines(
            "Evidence a task",
            "Mean pseudo-counts a task beyond its prior; forgetting bounds it. Pending: rollouts that wait for the "
            "update they belong to.",
            {"evidence": state("mean_evidence_rollouts"), "pending rollouts": state("pending_rollouts")},
            width=5,
            low=0,
            colors=(BLUE, YELLOW),
        ),
        lines(
            "Distinct, resting and retired tasks",
            "Tasks evaluated at least once, tasks that rest after an evaluation, and tasks that were retired.",
            {
                "distinct": state("distinct_tasks"),
                "resting": state("resting_tasks"),
                "retired": state("retired_tasks"),
            },
            width=5,
            low=0,
            colors=(BLUE, YELLOW, RED),
        ),
        lines(
            "Policy lag",
            "Policy steps between a selection and its report, recently, over the reports that state both.",
            {"policy steps": state("recent_policy_lag_steps")},
            width=4,
            low=0,
            colors=(PURPLE,),
        ),
        lines(
            "Outlier reports",
            "Reports that were far outside what the run had seen, and reports that were undone, by the history.",
            {
                "outliers": f"sum by (dataset, run) (increase(bots_run_outlier_reports_total{{{RUN}}}[{INTERVAL}]))",
                "undone": grown("undos"),
            },
            width=4,
            low=0,
            colors=(RED, GREY),
        ),
    ]
