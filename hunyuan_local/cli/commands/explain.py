"""``hunyuan-local explain``: how each backend would handle a request, without sending it."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table

from ...backends.base import Explanation
from ...backends.registry import backend_names, option_names
from ..shared.options import backend_from, backend_options, model_option, request_from, request_options


@click.command(name="explain")
@click.argument("prompt")
@backend_options("all", "Backend to explain, or all")
@model_option
@request_options
@click.option("--json", "as_json", is_flag=True, help="Print the explanations as a JSON list.")
def command(prompt: str, size: str | None, as_json: bool, **flags: Any) -> None:
    """Show whether each backend would accept, adjust or refuse a request.

    Example: hunyuan-local explain "a cat walks through snow" --size 960*544

    Prints the exact request body. Nothing is sent and no API key is needed. Without --seed, the seed in the body is
    random and changes with each call.
    """
    request = request_from(prompt, size, flags)
    chosen = flags.pop("backend")
    explanations = []
    for name in backend_names() if chosen == "all" else [chosen]:
        own = option_names(name)  # with --backend all, each backend gets only its own options
        options = {key: value for key, value in flags.items() if chosen != "all" or key in own}
        explanations.append(backend_from({"backend": name} | options).explain(request))
    if as_json:
        print(json.dumps([item.model_dump() for item in explanations], ensure_ascii=False))
    else:
        _print(explanations)


def _print(explanations: list[Explanation]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("backend", "verdict", "field", "what happens"):
        table.add_column(title, overflow="fold")
    for item in explanations:
        marks = {"accepted": "[green]accepted[/]", "adjusted": "[yellow]adjusted[/]", "refused": "[red]refused[/]"}
        rows = [(loss["field"], _fate(loss)) for loss in item.losses] + [("", note) for note in item.notes]
        rows = rows or [("", "unchanged")]
        if item.price_usd is not None:
            rows.append(("price", f"${item.price_usd:.2f} a video"))
        for index, (field, text) in enumerate(rows):
            table.add_row("" if index else item.backend, "" if index else marks[item.verdict], field, text)
    console.print(table)
    for item in explanations:
        if item.body is None:
            console.print(f"\n{item.backend}: nothing would be sent", markup=False)
            continue
        permitted = " with --allow-loss" if item.verdict == "adjusted" else ""
        where = f"POST {item.url}" if item.url else "input of the local pipeline"
        console.print(f"\n{item.backend}{permitted}: {where}", markup=False, soft_wrap=True)
        console.print(json.dumps(item.body, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


def _fate(loss: dict[str, Any]) -> str:
    if not loss["permissible"]:
        return f"{loss['reason']}: refused"
    fate = "omitted" if loss["becomes"] is None else f"changed to {loss['becomes']}"
    return f"{loss['reason']}: {fate} with --allow-loss"
