"""What Airflow loads of the pages, in every one of its processes: names and links. The web server makes the rest."""

from typing import Any, Final

from airflow.plugins_manager import AirflowPlugin

PREFIX: Final = "/landfall"
ROUTE: Final = "landfall"  # Airflow shows our pages under /plugin/landfall/…
_RUN = "landfall/run?dag_id={DAG_ID}&run_id={RUN_ID}"


class LandfallPlugin(AirflowPlugin):
    """The entry *Landfall* in Airflow's navigation, and the tab *Failed lines* on DAGs, their runs and tasks."""

    name = "landfall"
    external_views = [  # noqa: RUF012 - Airflow's own interface
        {
            "name": "Landfall", "href": "landfall/", "destination": "nav", "url_route": ROUTE, "nav_top_level": True,
            "icon": "/landfall/static/icon-nav.svg", "icon_dark_mode": "/landfall/static/icon-nav-dark.svg",
        },
        {
            "name": "Failed lines", "href": "landfall/failures?dag_id={DAG_ID}", "destination": "dag",
            "url_route": "landfall-dag",
        },
        {"name": "Failed lines", "href": _RUN, "destination": "dag_run", "url_route": "landfall-run"},
        {
            "name": "Failed lines", "href": _RUN + "&task_id={TASK_ID}&map_index={MAP_INDEX}",
            "destination": "task_instance", "url_route": "landfall-task",
        },
    ]  # fmt: skip

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """Asked for by the web server only."""
        from ingest.ui.app import make_app

        return [{"app": make_app(), "url_prefix": PREFIX, "name": "landfall"}]
