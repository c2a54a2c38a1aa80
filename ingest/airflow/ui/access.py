"""Who may see and do what: the one place that decides.

Airflow's login and permissions are the only ones. A source is shown to those who may read its DAG; raw lines and values
to those who may run it; an action on a file needs the permission to run its source, and to run the DAG that it starts.
A task cannot ask for these rights: what pages refuse, whoever may trigger `ingest_action` can do there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request

from ingest.airflow.names import dag_of
from ingest.airflow.ui import internals
from ingest.discovery import owner_of

if TYPE_CHECKING:
    from ingest.settings import Settings

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Visitor:
    user: Any  # Airflow's

    @property
    def name(self) -> str:
        """As Airflow calls them, in runs and in the history of files."""
        return str(self.user.get_name())

    def sees(self, source: str) -> bool:
        """Whether the ledger rows of a source may be shown."""
        return self.may_read(dag_of(source))

    def runs(self, source: str) -> bool:
        """Whether raw lines and values of a source may be shown, and its files acted on."""
        return self.may_run(dag_of(source))

    def reads(self, settings: "Settings", file: Mapping[str, Any]) -> bool:
        """`runs` for a file of the ledger. What lies below the prefix of another source now is for who may run both."""
        return all(self.runs(source) for source in _sources_of(settings, file))

    def may_read(self, dag_id: str) -> bool:
        """Whether this DAG and its runs may be looked at."""
        return internals.may(self.user, "read", dag_id)

    def may_run(self, dag_id: str) -> bool:
        """Whether a run of this DAG may be started."""
        return internals.may(self.user, "run", dag_id)

    def seen(self, sources: Iterable[str]) -> tuple[str, ...]:
        """Those of these sources that may be shown, in order."""
        return tuple(sorted({source for source in sources if self.sees(source)}))

    def seen_file(self, row: dict[str, Any] | None) -> dict[str, Any]:
        """A ledger row that was looked for. Raises 404 alike where there is none, and where it may not be shown."""
        if row is None or not self.sees(row["source"]):
            raise HTTPException(404, "There is no such file in the ledger.")
        return row

    def demand_lines(self, settings: "Settings", file: Mapping[str, Any]) -> None:
        """Raises 403 for a file of the ledger whose raw lines may not be shown."""
        for source in _sources_of(settings, file):
            self.demand_run(dag_of(source))

    def demand_run(self, dag_id: str) -> None:
        """Raises 403 for a DAG that may not be run."""
        if not self.may_run(dag_id):
            raise HTTPException(403, f"This needs the permission to run the DAG {dag_id}. Ask who runs this Airflow.")


def _sources_of(settings: "Settings", file: Mapping[str, Any]) -> tuple[str, ...]:
    return (file["source"], owner_of(settings, file["bucket"], file["key"]) or file["source"])


def visitor(request: Request, user: Annotated[Any, Depends(internals.logged_in)]) -> Visitor:
    """Who asks; 401 for nobody. What stands around each page asks `request.state` for it."""
    request.state.visitor = Visitor(user)
    return request.state.visitor  # type: ignore[no-any-return]  # a state holds anything


def same_origin(request: Request) -> None:
    """Refuse what another site makes a browser send: Airflow has no protection of its own for the apps of plugins.

    A browser tells where a request comes from, and scripts cannot change that. A token in the header is sent by nobody
    unknowingly.
    """
    if request.method in _SAFE_METHODS or request.headers.get("authorization", "").lower().startswith("bearer "):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    same_host = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not (site == "same-origin" if site else same_host):
        raise HTTPException(403, "This request comes from another site than this Airflow, so nothing was done.")


VisitorDep = Annotated[Visitor, Depends(visitor)]
