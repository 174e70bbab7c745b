"""Service: whether the servers and their Redis are healthy."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, lines, number, page, variable

Panels = list[Builder[Panel]]

SERVER = 'instance=~"$instance"'
PROCESS = f'job="bots", {SERVER}'
RUNS = f'{SERVER}, dataset=~"$dataset", run=~"$run"'
INTERVAL = "$__rate_interval"
# Statuses that are the service's fault or its load, not the caller's.
FAILURES = "UNAVAILABLE|INTERNAL|UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|DATA_LOSS|ABORTED"


def rate(metric: str, labels: str = "", by: str = "", of: str = SERVER) -> str:
    """Returns a rate summed over servers."""
    where = f"{of}, {labels}" if labels else of
    return f"sum{f' by ({by})' if by else ''} (rate(bots_{metric}{{{where}}}[{INTERVAL}]))"


def quantile(q: float, metric: str, labels: str = "", by: str = "") -> str:
    """Returns a quantile of a histogram, over servers; no value (instead of NaN) if nothing was observed."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels, f'le, {by}' if by else 'le')}) >= 0"


def service() -> dashboard.Dashboard:
    board = (
        page(
            "BOTS: service",
            "bots-service",
            "Whether the servers and their Redis are healthy: calls, errors, latency, saturation.",
            ("Difficulty drift", "/d/bots-drift"),
        )
        .with_variable(variable("instance", "Server", "label_values(bots_rpc_threads, instance)", several=True))
        .with_variable(variable("dataset", "Dataset", "label_values(bots_run_version, dataset)", several=True))
        .with_variable(variable("run", "Run", 'label_values(bots_run_version{dataset=~"$dataset"}, run)', several=True))
    )
    for panel in (*at_a_glance(), *calls(), *redis(), *replicas(), *saturation()):
        board.with_panel(panel)
    return board


def at_a_glance() -> Panels:
    failed = f'code=~"{FAILURES}"'
    return [
        number(
            "Servers up",
            "Servers that answered the last scrape.",
            'sum(up{job="bots"})',
            decimals=0,
            steps=((None, RED), (1, GREEN)),
        ),
        number("Calls a second", "Calls that ended, all methods.", rate("rpcs_total"), unit="reqps", decimals=1),
        number(
            "Failing calls",
            "Share of calls that ended in a status that is the service's fault or its load: "
            f"{FAILURES.replace('|', ', ')}.",
            f"({rate('rpcs_total', failed)} or vector(0)) / ({rate('rpcs_total')} > 0)",
            unit="percentunit",
            decimals=2,
            steps=((None, GREEN), (0.01, YELLOW), (0.05, RED)),
        ),
        number(
            "SelectBatch, 99 %",
            "99 % of the selections were answered within this time.",
            quantile(0.99, "rpc_duration_seconds", 'method="SelectBatch"'),
            unit="s",
            decimals=1,
            steps=((None, GREEN), (0.1, YELLOW), (0.5, RED)),
        ),
        number(
            "ReportOutcomes, 99 %",
            "99 % of the reports were acknowledged within this time.",
            quantile(0.99, "rpc_duration_seconds", 'method="ReportOutcomes"'),
            unit="s",
            decimals=1,
            steps=((None, GREEN), (0.1, YELLOW), (0.5, RED)),
        ),
        number(
            "Redis failures a minute",
            "Transitions that failed in Redis, a minute.",
            f"60 * {rate('redis_errors_total')}",
            decimals=1,
            steps=((None, GREEN), (0.1, YELLOW), (6, RED)),
        ),
    ]


def calls() -> Panels:
    loop = 'method=~"SelectBatch|ReportOutcomes"'
    return [
        lines(
            "Calls",
            "Calls that ended, by method.",
            {"{{method}}": f"{rate('rpcs_total', by='method')} > 0"},
            unit="reqps",
            low=0,
        ),
        lines(
            "Calls that failed",
            "By method and status. INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION are the caller's; UNAVAILABLE, "
            "INTERNAL and DEADLINE_EXCEEDED the service's.",
            {"{{method}} {{code}}": rate("rpcs_total", 'code!="OK"', "method, code")},
            unit="reqps",
            low=0,
        ),
        lines(
            "Latency of the loop",
            "Time in the server of the calls that a trainer waits for: half of them, and 99 % of them, were faster.",
            {
                "{{method}} 50 %": quantile(0.5, "rpc_duration_seconds", loop, "method"),
                "{{method}} 99 %": quantile(0.99, "rpc_duration_seconds", loop, "method"),
            },
            unit="s",
            low=0,
        ),
    ]


def redis() -> Panels:
    return [
        lines(
            "Redis: transitions",
            "Transitions of the store by name.",
            {"{{command}}": rate("redis_command_duration_seconds_count", by="command")},
            unit="ops",
            low=0,
        ),
        lines(
            "Redis: latency, 99 %",
            "From sending a transition to its answer, retries included.",
            {"{{command}}": quantile(0.99, "redis_command_duration_seconds", by="command")},
            unit="s",
            low=0,
        ),
        lines(
            "Redis: failures and retries",
            "Transitions that failed in Redis, and commands that were sent again, a second.",
            {
                "failures": rate("redis_errors_total"),
                "retries": rate("redis_retries_total"),
            },
            unit="ops",
            width=4,
            low=0,
            colors=(RED, YELLOW),
        ),
        lines(
            "Redis: memory",
            "Memory in use and maxmemory (0: no limit). At the limit Redis refuses writes (noeviction).",
            {"used": "max(redis_memory_used_bytes)", "limit": "max(redis_memory_max_bytes)"},
            unit="bytes",
            width=4,
            low=0,
            colors=(BLUE, RED),
        ),
    ]


def replicas() -> Panels:
    return [
        lines(
            "Fold lag",
            "Events that a replica had to fold before a call could go on: half, and 99 %, of the calls had fewer.",
            {
                "50 %": quantile(0.5, "fold_lag_events"),
                "99 %": quantile(0.99, "fold_lag_events"),
            },
            low=0,
            colors=(GREY, BLUE),
        ),
        lines(
            "Folding and snapshots, 99 %",
            "Time to read and fold those events, and to make and store a snapshot (in the background).",
            {
                "fold": quantile(0.99, "fold_duration_seconds"),
                "snapshot": quantile(0.99, "snapshot_duration_seconds"),
            },
            unit="s",
            low=0,
            colors=(BLUE, PURPLE),
        ),
        lines(
            "Snapshots and rebuilds a minute",
            "Snapshots that Redis took, refused (another server was first) or that failed; replicas that were rebuilt "
            "because Redis had another history than was folded.",
            {
                "snapshots {{outcome}}": f"60 * {rate('snapshots_total', by='outcome')}",
                "rebuilds": f"60 * {rate('replica_rebuilds_total')}",
            },
            low=0,
        ),
        lines(
            "Live leases",
            "Tasks that a live selection has leased, by run.",
            {"{{dataset}}/{{run}}": f"max by (dataset, run) (bots_run_leases{{{RUNS}}})"},
            low=0,
        ),
        lines(
            "Leases a second",
            "Leases granted, released by a report or ReleaseSelection, expired, superseded by a new incarnation of "
            "their job, and ended by a restore or EndLeases. Many that expire: trainers die, or lease_seconds is "
            "shorter than a step.",
            {"{{event}}": rate("leases_total", by="event")},
            low=0,
        ),
        lines(
            "Selections a second",
            "Selections that the servers answered, by run.",
            {"{{dataset}}/{{run}}": rate("run_selections_total", by="dataset, run", of=RUNS)},
            unit="reqps",
            low=0,
        ),
    ]


def saturation() -> Panels:
    return [
        lines(
            "Saturation",
            "Share of the call threads that are busy, long calls included. At 100 % calls wait.",
            {
                "{{instance}}": f"sum by (instance) (bots_rpcs_in_progress{{{SERVER}}}) / "
                f"sum by (instance) (bots_rpc_threads{{{SERVER}}})"
            },
            unit="percentunit",
            width=6,
            low=0,
            high=1,
        ),
        lines(
            "CPU",
            "CPU cores in use by each server.",
            {"{{instance}}": f"sum by (instance) (rate(process_cpu_seconds_total{{{PROCESS}}}[{INTERVAL}]))"},
            width=6,
            low=0,
        ),
        lines(
            "Memory",
            "Resident memory of each server.",
            {
                "{{instance}}": f"sum by (instance) (process_resident_memory_bytes{{{PROCESS}}})",
            },
            unit="bytes",
            width=6,
            low=0,
        ),
        lines(
            "Runs held",
            "Runs that each server holds in memory.",
            {"{{instance}}": f"sum by (instance) (bots_replicas{{{SERVER}}})"},
            width=6,
            low=0,
        ),
    ]
