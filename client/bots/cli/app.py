"""The `bots` command put together."""

from __future__ import annotations

import typer

from bots.cli import datasets, runs
from bots.cli.connection import connect
from bots.cli.doctor import doctor
from bots.cli.loop import posteriors, report, select
from bots.cli.watch import watch
from bots.demo.command import demo
from bots.replay.command import replay

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.callback()(connect)
app.add_typer(datasets.app, name="dataset")
app.add_typer(runs.app, name="run")
for command in (select, report, posteriors, watch, doctor, replay, demo):
    app.command()(command)
