"""What Airflow loads of the pages, in every one of its processes: names and links. The web server makes the rest."""

from typing import Any, Final

from airflow import __version__
from airflow.plugins_manager import AirflowPlugin

from ingest.airflow.names import MOUNTED, ROUTE, TAG
from ingest.airflow.ui import notes

_RUN = "landfall/run?dag_id={DAG_ID}&run_id={RUN_ID}"
# Airflow 3.4 shows a tab on these DAGs only. 3.3 shows it on all: there the tab says that a DAG is not ours.
_OURS: Final = {"dag.tags.name": [TAG]}
# 3.4 has a place for a button on the page of a DAG. 3.3 refuses the whole plugin for naming it.
_HAS_OVERVIEW: Final = tuple(map(int, __version__.split(".")[:2])) >= (3, 4)


class LandfallPlugin(AirflowPlugin):
    """The entry *Landfall* in Airflow's navigation, the tab *Failed lines* on DAGs, runs and tasks, *N to fix*."""

    name = "landfall"
    external_views = [  # noqa: RUF012 - Airflow's own interface
        {
            "name": "Landfall", "href": "landfall/", "destination": "nav", "url_route": ROUTE, "nav_top_level": True,
            "icon": "/landfall/static/icon-nav.svg", "icon_dark_mode": "/landfall/static/icon-nav-dark.svg",
        },
        *(
            {"name": "Failed lines", "href": href, "destination": at, "url_route": route, "applies_to": _OURS}
            for href, at, route in (
                ("landfall/failures?dag_id={DAG_ID}", "dag", "landfall-dag"),
                (_RUN, "dag_run", "landfall-run"),
                (_RUN + "&task_id={TASK_ID}&map_index={MAP_INDEX}", "task_instance", "landfall-task"),
            )
        ),
    ]  # fmt: skip
    react_apps = [
        {
            "name": "landfall_to_fix", "bundle_url": "landfall/static/to-fix.js", "destination": "dag_overview",
            "applies_to": _OURS,
        }
    ] * _HAS_OVERVIEW  # fmt: skip

    listeners = [notes]  # noqa: RUF012 - as above

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """Asked for by the web server only."""
        from ingest.airflow.ui.app import make_app

        return [{"app": make_app(), "url_prefix": MOUNTED, "name": "landfall"}]
