"""Rights for each DAG, which Airflow's simple auth manager does not know: configured as any other auth manager is."""

from typing import TYPE_CHECKING, Any, Final

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

RUNS: Final = "runs "


class Rights(SimpleAuthManager):  # type: ignore[misc]  # Airflow is not typed for us
    """A user called `runs ingest_website, ingest_action` may read and run these two DAGs, and no other."""

    def is_authorized_dag(
        self,
        *,
        method: Any,
        user: "SimpleAuthManagerUser",
        access_entity: "DagAccessEntity | None" = None,
        details: "DagDetails | None" = None,
    ) -> bool:
        """Everybody else has the rights of a role, as ever."""
        if not user.username.startswith(RUNS):
            told = super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
            return bool(told)
        dag_ids = user.username.removeprefix(RUNS).split(", ")
        return details is not None and details.id in dag_ids and method in ("GET", "POST")
