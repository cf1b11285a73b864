"""The command `tessera doctor`."""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console
from rich.markup import escape

from service.local.checkup import examine_stack
from service.local.finding import Finding
from service.local.machine import examine_machine
from service.local.state import recorded_stack
from service.settings import Settings
from tenants.errors import Misconfigured

console = Console(highlight=False, soft_wrap=True)


def doctor() -> None:
    """Say what is wrong here and how to mend it; exit status 1 if something is wrong."""
    settings = Settings()
    data_dir = settings.data_dir.absolute()
    try:
        recorded = recorded_stack(data_dir)
    except Misconfigured:
        recorded = None  # the finding about the folder or its secrets says why
    alive = recorded is not None and recorded.alive()
    findings = examine_machine(data_dir, settings.api.port, running=alive)
    findings += asyncio.run(examine_stack(settings, recorded))
    for finding in findings:
        show(finding)
    failures = sum(not finding.good for finding in findings)
    if failures:
        console.print(f"\n[red]{failures} of {len(findings)} checks found something wrong.[/]")
        raise typer.Exit(1)
    console.print(f"\n[green]All {len(findings)} checks are good.[/]")


def show(finding: Finding) -> None:
    """Print one finding, its mend and the log that says more."""
    mark = "[green]good [/]" if finding.good else "[red]WRONG[/]"
    console.print(f"{mark} [bold]{escape(finding.subject)}[/]: {escape(finding.detail)}")
    if finding.mend:
        console.print(f"      mend: {escape(finding.mend)}")
    for line in finding.tail:
        console.print(f"      | {escape(line)}")
