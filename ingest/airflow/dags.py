"""The DAGs: one for each source, for a person's own files, for actions on files, and to look for what was missed.

    discover ─► load (a task for each pack) ─┬─► announcements ─► announce (a task for each hundred)
                                             └─► verdict

Loading tasks commit what they can and never fail for a file. `announce` tells other DAGs, `verdict` tells people: it is
what turns a run red. Both run unless there was nothing to load. A DAG says when; `steps` say what. The scheduler reads
this module often, so nothing here imports boto3, DuckDB or Arrow.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.sdk import DAG, Asset, AssetAlias, Param, dag, get_current_context, get_parsing_context, task
from airflow.sdk.configuration import conf

from ingest.airflow import action, texts
from ingest.airflow.names import ACTION, ACTION_DAG, CONFIG_ERRORS_DAG, ONE_OFF_DAG, RECONCILE_DAG, TAG, dag_of
from ingest.airflow.one_off import PASTED_AT_MOST
from ingest.core.formats import FORMATS
from ingest.core.formats.guess import AUTO
from ingest.core.source import ONE_OFF
from ingest.errors import ConfigError
from ingest.settings import Settings, Source, load_settings, spans_hosts

START: Final = datetime(2025, 1, 1, tzinfo=UTC)
COMMON: Final[dict[str, Any]] = {
    "start_date": START,
    "catchup": False,
    "max_active_runs": 1,
    "auto_register": False,  # one that turns out wrong must not reach Airflow
    "is_paused_upon_creation": False,  # who writes a source down wants it loaded; pausing it is one click
    "default_args": {
        "owner": "landfall",
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=10),
    },
}
_FILES_TIME_MARGIN: Final = timedelta(hours=1)  # of a task beside its slowest file: the others, and what is waited for
Packs = list[dict[str, Any]]
Results = list[dict[str, Any]]


def common(settings: Settings) -> dict[str, Any]:
    """What all DAGs share.

    The time-out is the last resort, so that the next runs do not wait for ever. The load itself ends what is slow long
    before, file by file (`max_file_time`), so that the neighbours are loaded. Airflow ends a task by an exception
    wherever it is: a load is a transaction, which then was committed or was not, and the next try asks the ledger.
    """
    # A file is judged at most twice: with others, and alone if something ran out.
    longest = 2 * timedelta(seconds=settings.max_file_seconds) + _FILES_TIME_MARGIN
    return COMMON | {"default_args": COMMON["default_args"] | {"execution_timeout": longest}}


def build_dags() -> dict[str, DAG]:
    """Every DAG by its id, or in a task's process only the one that it belongs to.

    Wrong settings of one source take nothing from the others: they are shown by a DAG of their own.
    """
    problems: list[str] = []
    try:
        settings = load_settings(os.environ, sound_only=True)
        problems += settings.problems
        if "INGEST_WAREHOUSE" in os.environ:  # else a connection may name another, which only a task can ask for
            problems += filter(None, [spans_hosts(settings.warehouse_url, conf.get("core", "executor"))])
    except ConfigError as error:
        settings = Settings(warehouse_url="")
        problems += error.problems
        makers: dict[str, Callable[[], DAG]] = {}
    else:
        makers = {dag_of(source.name): _maker(source, settings) for source in settings.sources.values()}
        makers |= {
            ONE_OFF_DAG: lambda: one_off_dag(settings),
            ACTION_DAG: lambda: action_dag(settings),
            RECONCILE_DAG: lambda: reconcile_dag(settings),
        }

    wanted = get_parsing_context().dag_id
    made: dict[str, DAG] = {}
    for dag_id, make in makers.items():
        if wanted in (None, dag_id):
            try:
                found = make()
                found.timetable.validate()
                made[dag_id] = found
            except Exception as error:  # noqa: BLE001 - Airflow has its own ways to refuse a schedule
                problems.append(f"{dag_id}: {error}")
    if problems and wanted in (None, CONFIG_ERRORS_DAG):
        made[CONFIG_ERRORS_DAG] = config_errors_dag(problems, settings)
    return made


def _maker(source: Source, settings: Settings) -> Callable[[], DAG]:
    return lambda: source_dag(source, settings)


def source_dag(source: Source, settings: Settings) -> DAG:
    """`ingest_<source>`: what is new in the bucket, loaded on the source's schedule."""

    @dag(
        dag_id=dag_of(source.name),
        schedule=airflow_schedule(source.schedule),
        tags=[TAG, source.format],
        description=f"{source.format} files under s3://{source.bucket}/{source.prefix}",
        doc_md=texts.source_doc(source),
        **common(settings),
    )
    def build() -> None:
        @task(task_display_name="Find new files")
        def discover() -> Packs:
            """List the bucket, take away what the ledger knows, pack the rest."""
            from airflow.sdk.exceptions import AirflowFailException

            from ingest.airflow import steps
            from ingest.airflow.runtime import note_of, open_runtime
            from ingest.airflow.tables import named

            with open_runtime() as pipeline:
                packs, landing = steps.discover(pipeline, source.name, note_of(get_current_context()))
            get_current_context()["ti"].xcom_push("landing", landing)
            if landing["problems"] and not packs:  # with files to load the verdict says it
                raise AirflowFailException(f"Not all can be loaded:\n{named(landing['problems'])}")
            return packs

        packs = discover()
        loaded = _load_task(settings).expand(pack=packs)
        _announce(source.name, loaded)
        loaded >> _verdict(source.name, packs)

    return build()


def one_off_dag(settings: Settings) -> DAG:
    """`ingest_one_off`: a person's own files or lines, checked or loaded now."""

    @dag(
        dag_id=ONE_OFF_DAG,
        schedule=None,
        tags=[TAG],
        description="Check or load files in S3, or lines that you paste",
        doc_md=texts.ONE_OFF_DOC,
        params=one_off_params(),
        **common(settings) | {"max_active_runs": 4},
    )
    def build() -> None:
        @task(task_display_name="Find the files")
        def collect() -> Packs:
            """Find the files that were named; store pasted lines first."""
            from ingest.airflow import one_off, steps
            from ingest.airflow.runtime import home, open_runtime, task_settings

            context = get_current_context()
            with open_runtime() as pipeline:
                request = one_off.Request.from_params(context["params"])
                files = one_off.collect(
                    pipeline,
                    task_settings(os.environ),
                    request,
                    run_id=context["run_id"],
                    asked_at=context["dag_run"].run_after,
                    pasted_folder=home(os.environ) / "landfall" / "pasted",
                )
                return steps.packed(pipeline, files)

        @task.branch(task_display_name="Check or load?")
        def choose() -> str:
            """Take the way that the form asks for."""
            return str(get_current_context()["params"]["action"])

        @task(task_display_name="Check", map_index_template=LABEL)
        def check(pack: dict[str, Any]) -> Results:
            """Judge one pack; load nothing."""
            from ingest.airflow import steps
            from ingest.airflow.runtime import open_runtime

            with open_runtime() as pipeline:
                return _labelled(steps.check(pipeline, pack))

        packs = collect()
        loaded = _load_task(settings, is_named=True).expand(pack=packs)
        checked = check.expand(pack=packs)
        packs >> choose() >> [loaded, checked]
        _announce(ONE_OFF, loaded)
        [loaded, checked] >> _verdict(ONE_OFF, packs)

    return build()


def action_dag(settings: Settings) -> DAG:
    """`ingest_action`: what a person does to files that were dealt with."""

    @dag(
        dag_id=ACTION_DAG,
        schedule=None,
        tags=[TAG],
        description="Undo, force, release, ignore, retry or redrive files",
        doc_md=texts.ACTION_DOC,
        params=action.params(sorted(settings.sources)),
        **common(settings) | {"max_active_runs": 4},
    )
    def build() -> None:
        @task(task_display_name="Do what was asked")
        def act() -> Results:
            """Do it, and say what became of each file."""
            from airflow.sdk.exceptions import AirflowFailException

            from ingest.airflow import steps
            from ingest.airflow.runtime import PROBLEM, note_of, open_runtime
            from ingest.errors import IngestError, TransientError

            context = get_current_context()
            try:
                with open_runtime() as pipeline:
                    request = action.Request.from_params(context["params"])
                    results = steps.act(pipeline, request, note_of(context, request.reason))
            except TransientError:
                raise
            except IngestError as error:  # nothing to wait for
                context["ti"].xcom_push(PROBLEM, str(error))
                raise AirflowFailException(str(error)) from error
            return results

        @task(task_display_name="Which files are not as asked")
        def verdict(results: Results) -> None:
            """Fail if a file is not as it was asked to be."""
            from airflow.sdk.exceptions import AirflowFailException

            from ingest.airflow.tables import named
            from ingest.text import count

            if wrong := [f"{one['key']}: {one['error']}" for one in results if one["error"]]:
                raise AirflowFailException(f"{count(len(wrong), 'file')} not as asked:\n{named(wrong)}")

        results = act()
        _announce(ACTION, results)
        verdict(results)

    return build()


def reconcile_dag(settings: Settings) -> DAG:
    """`ingest_reconcile`: daily, what the other runs may have missed."""

    @dag(
        dag_id=RECONCILE_DAG,
        schedule="@daily",
        tags=[TAG],
        description="Files that wait, that are stuck, that are nowhere",
        doc_md=texts.RECONCILE_DOC,
        **common(settings),
    )
    def build() -> None:
        @task(task_display_name="Look for what was missed")
        def reconcile() -> dict[str, Any]:
            """Hold the buckets against the ledger; fail, with each difference named."""
            from airflow.sdk.exceptions import AirflowFailException

            from ingest.airflow import steps
            from ingest.airflow.runtime import open_runtime
            from ingest.airflow.tables import named
            from ingest.text import count

            with open_runtime() as pipeline:
                told = steps.reconcile(pipeline, get_current_context()["run_id"])
            if differences := told["differences"]:
                get_current_context()["ti"].xcom_push("return_value", told)
                raise AirflowFailException(f"{count(len(differences), 'thing')} to look at:\n{named(differences)}")
            return told

        reconcile()

    return build()


def config_errors_dag(problems: list[str], settings: Settings) -> DAG:
    """Wrong settings, where a person sees them: red on the first page until they are mended."""

    @dag(
        dag_id=CONFIG_ERRORS_DAG,
        dag_display_name="Landfall: wrong settings",
        schedule="@hourly",
        tags=[TAG],
        description=texts.one_line(problems),
        doc_md=texts.config_errors_doc(problems),
        **common(settings),
    )
    def build() -> None:
        @task(task_display_name="Say what is wrong", retries=0)
        def settings_are_wrong() -> None:
            """Fail, saying which."""
            from airflow.sdk.exceptions import AirflowFailException

            raise AirflowFailException("\n".join(problems))

        settings_are_wrong()

    return build()


def airflow_schedule(schedule: str | int | None) -> str | timedelta | None:
    """Seconds become a timedelta; presets and cron expressions are Airflow's own."""
    if isinstance(schedule, int):
        return timedelta(seconds=schedule)
    return schedule


def asset_of(source: str) -> Asset:
    """What other DAGs wait for: `schedule=[Asset("landfall/website")]`."""
    return Asset(f"landfall/{source}")


# What a mapped task is called: what it loads, and once it is done, what a person should know.
LABEL: Final = "{{ task.op_kwargs['pack']['name'] }}{{ outcome | default('') }}"


def _labelled(results: Results) -> Results:
    from ingest.airflow.tables import outcome

    get_current_context()["outcome"] = outcome(results)
    return results


def _load_task(settings: Settings, *, is_named: bool = False) -> Any:
    # Judging uses every core of a host, and with an embedded warehouse all tasks are on one. Its writers wait for each
    # other in the adapter, so no pool is needed.
    at_once = 2 if settings.warehouse_url.startswith("duckdb:") else None

    @task(task_display_name="Load", map_index_template=LABEL, max_active_tis_per_dag=at_once)
    def load(pack: dict[str, Any]) -> Results:
        """Judge one pack of files and load it in one transaction."""
        from ingest.airflow import steps
        from ingest.airflow.runtime import note_of, open_runtime

        context = get_current_context()
        force = bool(context["params"].get("force", False))
        with open_runtime() as pipeline:
            return _labelled(steps.load(pipeline, pack, note_of(context, is_named=is_named), force=force))

    return load


def _announce(source: str, loaded: Any) -> None:
    """One asset event for each file that the run loaded.

    An alias, since it is the only outlet that carries several events with an `extra` each. Airflow keeps the events
    only if the task succeeds, all in one request that must be quick: hence batches. A task that is run once more, after
    a crash or because a person cleared it, first looks at what was told already.
    """
    alias = AssetAlias(f"landfall/{source}")

    @task(task_display_name="List what was loaded", trigger_rule="none_skipped")
    def announcements() -> list[list[dict[str, Any]]]:
        """Ask the ledger which files this run loaded."""
        from ingest.airflow import steps
        from ingest.airflow.runtime import open_runtime

        with open_runtime() as pipeline:
            run_id = get_current_context()["run_id"]
            return steps.announcements(pipeline, run_id, None if source in (ONE_OFF, ACTION) else source)

    @task(
        task_display_name="Tell other DAGs",
        outlets=[alias],
        inlets=[alias],
        map_index_template="{{ task.op_kwargs['batch'] | length }} files",
    )
    def announce(batch: list[dict[str, Any]]) -> None:
        """Tell other DAGs which files are in the warehouse now."""
        context = get_current_context()
        told = set()
        if context["ti"].try_number > 1:
            run = (context["dag"].dag_id, context["run_id"])
            events = context["inlet_events"][alias].after(context["dag_run"].run_after.isoformat())
            told = {event.extra.get("file_id") for event in events if (event.source_dag_id, event.source_run_id) == run}
        for extra in batch:
            if extra["file_id"] not in told:
                context["outlet_events"][alias].add(asset_of(extra["source"]), extra=extra)

    planned = announcements()
    loaded >> planned
    announce.expand(batch=planned)


def _verdict(source: str, packs: Any) -> Any:
    @task(
        task_display_name="Which files could not be loaded",
        trigger_rule="all_done" if source == ONE_OFF else "none_skipped",  # there either a load or a check is skipped
    )
    def verdict(packs: Packs | None) -> Mapping[str, Any]:
        """Say what became of the files, here and to whom `notify` names; fail if one could not be loaded."""
        from airflow.sdk.exceptions import AirflowFailException

        from ingest.airflow import notify, steps
        from ingest.airflow.runtime import open_runtime
        from ingest.airflow.tables import named
        from ingest.text import count

        if packs is None:
            raise AirflowFailException("The files could not be found: the task before the loads says why in its log.")
        ti = get_current_context()["ti"]
        parts = [part for part in ti.xcom_pull(task_ids=["load", "check"]) if part is not None]
        with open_runtime() as pipeline:
            landing = ti.xcom_pull(task_ids="discover", key="landing") if source != ONE_OFF else None
            told = steps.verdict(
                pipeline, packs, [result for part in parts for result in part], (landing or {}).get("problems", ())
            )
            run_id = get_current_context()["run_id"]
            notify.tell_of_run(pipeline, run_id, None if source == ONE_OFF else source, told.pop("lost"))
        missing = told["not_loaded"]
        if missing:
            ti.xcom_push("return_value", told)
            raise AirflowFailException(f"{count(len(missing), 'file')} could not be loaded:\n{named(missing)}")
        if (died := len(packs) - len(parts)) > 0:
            ti.xcom_push("return_value", told)
            raise AirflowFailException(f"{count(died, 'loading task')} did not end, but all files are in the ledger.")
        return told

    return verdict(packs)


def one_off_params() -> dict[str, Param]:
    """The form. Every field explains itself; the ones that most people need come first."""
    return {
        "files": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Files in S3",
            description="One address a line: s3://bucket/key for a file, s3://bucket/prefix/ for all below it.",
        ),
        "lines": Param(
            None,
            type=["null", "string"],
            format="multiline",
            maxLength=PASTED_AT_MOST,
            title="Or paste lines",
            description=f"As they stand in a file, one JSON object a line; {PASTED_AT_MOST:,} characters at most.",
        ),
        "action": Param(
            "load",
            type="string",
            enum=["load", "check"],
            values_display={"load": "Load into the warehouse", "check": "Only check, load nothing"},
            title="What to do",
            description="A file that is in the warehouse already is never loaded twice.",
        ),
        "format": Param(
            AUTO,
            type="string",
            enum=[AUTO, *FORMATS],
            values_display={AUTO: "The source's own; guessed from the file where there is none"},
            title="Format",
            description="What the lines are. A file that belongs to a source has the format of that source.",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Load again",
            description="Put the file in the place of its former rows, and past its limits if it was rejected.",
        ),
    }
