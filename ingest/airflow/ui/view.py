"""From values to an HTML page: the templates, what they may call, and where links lead."""

from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ingest.airflow.names import MOUNTED, ONE_OFF_DAG, ROUTE
from ingest.airflow.ui import shown

_TEMPLATES: Final = Path(__file__).parent / "templates"


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page. `root` is where ours begin, `airflow` where Airflow's own do; neither ends with a slash.

    One that is as of a moment before it was asked for shows a copy that is stale: a newer one is being made.
    """
    root: str = request.scope.get("root_path", "")
    airflow = root.removesuffix(MOUNTED)
    who = getattr(request.state, "visitor", None)
    values |= {
        "root": root, "who": who.name if who else "", "airflow": airflow, "status": status,
        "may_upload": who is not None and who.may_run(ONE_OFF_DAG), "framed": f"{airflow}/plugin/{ROUTE}",
        "is_behind": "as_of" in values and values["as_of"] < request.state.begun,
    }  # fmt: skip
    text = _environment().get_template(template).render(values)
    return Response(text, status, media_type="text/html")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "size": shown.size, "age": shown.age, "every": shown.every, "moment": shown.moment,
        "plain": shown.plain, "segment": _segment, "number": lambda number: f"{number:,}",
    }  # fmt: skip
    environment.globals |= {"share": shown.share, "raw_pieces": shown.raw_pieces, "query": query}
    return environment


def _segment(text: object) -> str:
    """One part of a path of an address, whatever it holds."""
    return quote(str(text), safe="")


def query(**values: Any) -> str:
    """`?a=b&c=d` of the values that say something."""
    told = {name: value for name, value in values.items() if value not in (None, "", (), []) and value is not False}
    return f"?{urlencode(told, doseq=True)}" if told else ""
