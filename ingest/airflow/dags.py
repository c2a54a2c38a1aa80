"""The DAGs: one for each source, for a person's own files, for actions on files, and to look for what was missed.

    discover ─► load (a task for each pack) ─┬─► announcements ─► announce (a task for each hundred)
                                             └─► verdict

Loading tasks commit what they can and never fail for a file. `announce` tells other DAGs, `verdict` tells people: it is
what turns a run red. Both run unless there was nothing to load. A DAG says when; `steps` say what. The scheduler reads
this module often, so nothing here imports boto3, DuckDB or Arrow: tasks import `steps` themselves.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from airflow.sdk import DAG, Asset, AssetAlias, get_current_context, get_parsing_context, task
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from ingest.airflow import action, one_off, texts
from ingest.airflow.names import ACTION, ACTION_DAG, CONFIG_ERRORS_DAG, ONE_OFF_DAG, RECONCILE_DAG, TAG, dag_of
from ingest.airflow.runtime import PROBLEM, home, note_of, open_runtime, task_settings
from ingest.airflow.tables import named, outcome
from ingest.core.source import ONE_OFF
from ingest.errors import ConfigError, IngestError, TransientError
from ingest.settings import Settings, Source, load_settings, spans_hosts
from ingest.text import count

COMMON: Final[dict[str, Any]] = {
    "start_date": datetime(2025, 1, 1, tzinfo=UTC),
    "schedule": None,
    "tags": [TAG],
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


def _dag(settings: Settings, dag_id: str, description: str, doc_md: str, **more: Any) -> DAG:
    """A DAG with what all of them share.

    The time-out is the last resort, so that the next runs do not wait for ever. The load itself ends what is slow long
    before, file by file (`max_file_time`), so that the neighbours are loaded. Airflow ends a task by an exception
    wherever it is: a load is a transaction, which then was committed or was not, and the next try asks the ledger.
    """
    # A file is judged at most twice: with others, and alone if something ran out.
    longest = 2 * timedelta(seconds=settings.max_file_seconds) + _FILES_TIME_MARGIN
    default_args = COMMON["default_args"] | {"execution_timeout": longest}
    return DAG(dag_id, description=description, doc_md=doc_md, **COMMON | {"default_args": default_args} | more)


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
        makers = {dag_of(source.name): partial(source_dag, settings, source) for source in settings.sources.values()}
        others = {ONE_OFF_DAG: one_off_dag, ACTION_DAG: action_dag, RECONCILE_DAG: reconcile_dag}
        makers |= {dag_id: partial(make, settings) for dag_id, make in others.items()}

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
        made[CONFIG_ERRORS_DAG] = config_errors_dag(settings, problems)
    return made


def source_dag(settings: Settings, source: Source) -> DAG:
    """`ingest_<source>`: what is new in the bucket, loaded on the source's schedule."""
    about = f"{source.format} files under s3://{source.bucket}/{source.prefix}"
    seconds = source.schedule
    schedule = timedelta(seconds=seconds) if isinstance(seconds, int) else seconds  # presets and cron are Airflow's own
    tags = [TAG, source.format]
    with _dag(settings, dag_of(source.name), about, texts.source_doc(source), schedule=schedule, tags=tags) as made:

        @task(task_display_name="Find new files")
        def discover() -> Packs:
            """List the bucket, take away what the ledger knows, pack the rest."""
            from ingest.airflow import steps

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

    return made


def one_off_dag(settings: Settings) -> DAG:
    """`ingest_one_off`: a person's own files or lines, checked or loaded now."""
    about = "Check or load files in S3, or lines that you paste"
    with _dag(settings, ONE_OFF_DAG, about, texts.ONE_OFF_DOC, params=one_off.params(), max_active_runs=4) as made:

        @task(task_display_name="Find the files")
        def collect() -> Packs:
            """Find the files that were named; store pasted lines first."""
            from ingest.airflow import steps

            context = get_current_context()
            with open_runtime() as pipeline:
                request = one_off.Request.from_params(context["params"])
                files = one_off.collect(
                    pipeline, task_settings(os.environ), request, run_id=context["run_id"],
                    asked_at=context["dag_run"].run_after, pasted_folder=home(os.environ) / "landfall" / "pasted",
                )  # fmt: skip
                return steps.packed(pipeline, files)

        @task.branch(task_display_name="Check or load?")
        def choose() -> str:
            """Take the way that the form asks for."""
            return str(get_current_context()["params"]["action"])

        @task(task_display_name="Check", map_index_template=LABEL)
        def check(pack: dict[str, Any]) -> Results:
            """Judge one pack; load nothing."""
            from ingest.airflow import steps

            with open_runtime() as pipeline:
                return _labelled(steps.check(pipeline, pack))

        packs = collect()
        loaded = _load_task(settings, is_named=True).expand(pack=packs)
        checked = check.expand(pack=packs)
        packs >> choose() >> [loaded, checked]
        _announce(ONE_OFF, loaded)
        [loaded, checked] >> _verdict(ONE_OFF, packs)

    return made


def action_dag(settings: Settings) -> DAG:
    """`ingest_action`: what a person does to files that were dealt with."""
    about, params = "Undo, force, release, ignore, retry or redrive files", action.params(sorted(settings.sources))
    with _dag(settings, ACTION_DAG, about, texts.ACTION_DOC, params=params, max_active_runs=4) as made:

        @task(task_display_name="Do what was asked")
        def act() -> Results:
            """Do it, and say what became of each file."""
            from ingest.airflow import steps

            context = get_current_context()
            try:
                with open_runtime() as pipeline:
                    request = action.Request.from_params(context["params"])
                    return steps.act(pipeline, request, note_of(context, request.reason))
            except TransientError:
                raise
            except IngestError as error:  # nothing to wait for
                context["ti"].xcom_push(PROBLEM, str(error))
                raise AirflowFailException(str(error)) from error

        @task(task_display_name="Which files are not as asked")
        def verdict(results: Results) -> None:
            """Fail if a file is not as it was asked to be."""
            if wrong := [f"{one['key']}: {one['error']}" for one in results if one["error"]]:
                raise AirflowFailException(f"{count(len(wrong), 'file')} not as asked:\n{named(wrong)}")

        results = act()
        _announce(ACTION, results)
        verdict(results)

    return made


def reconcile_dag(settings: Settings) -> DAG:
    """`ingest_reconcile`: daily, what the other runs may have missed."""
    about = "Files that wait, that are stuck, that are nowhere"
    with _dag(settings, RECONCILE_DAG, about, texts.RECONCILE_DOC, schedule="@daily") as made:

        @task(task_display_name="Look for what was missed")
        def reconcile() -> dict[str, Any]:
            """Hold the buckets against the ledger; fail, with each difference named."""
            from ingest.airflow import steps

            with open_runtime() as pipeline:
                told = steps.reconcile(pipeline, get_current_context()["run_id"])
            if differences := told["differences"]:
                get_current_context()["ti"].xcom_push("return_value", told)
                raise AirflowFailException(f"{count(len(differences), 'thing')} to look at:\n{named(differences)}")
            return told

        reconcile()

    return made


def config_errors_dag(settings: Settings, problems: list[str]) -> DAG:
    """Wrong settings, where a person sees them: red on the first page until they are fixed."""
    about = problems[0] if len(problems) == 1 else f"{len(problems)} settings are wrong. {problems[0]}"
    shown: dict[str, Any] = {"dag_display_name": "Landfall: wrong settings", "schedule": "@hourly"}
    with _dag(settings, CONFIG_ERRORS_DAG, about, texts.config_errors_doc(problems), **shown) as made:

        @task(task_display_name="Say what is wrong", retries=0)
        def settings_are_wrong() -> None:
            """Fail, saying which."""
            raise AirflowFailException("\n".join(problems))

        settings_are_wrong()

    return made


# What a mapped task is called: what it loads, and once it is done, what a person should know.
LABEL: Final = "{{ task.op_kwargs['pack']['name'] }}{{ outcome | default('') }}"


def _labelled(results: Results) -> Results:
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

        with open_runtime() as pipeline:
            run_id = get_current_context()["run_id"]
            return steps.announcements(pipeline, run_id, None if source in (ONE_OFF, ACTION) else source)

    label = "{{ task.op_kwargs['batch'] | length }} files"

    @task(task_display_name="Tell other DAGs", outlets=[alias], inlets=[alias], map_index_template=label)
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
                context["outlet_events"][alias].add(Asset(f"landfall/{extra['source']}"), extra=extra)

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
        from ingest.airflow import notify, steps

        if packs is None:
            raise AirflowFailException("The files could not be found: the task before the loads says why in its log.")
        ti = get_current_context()["ti"]
        parts = [part for part in ti.xcom_pull(task_ids=["load", "check"]) if part is not None]
        results = [result for part in parts for result in part]
        with open_runtime() as pipeline:
            landing = ti.xcom_pull(task_ids="discover", key="landing") if source != ONE_OFF else None
            told = steps.verdict(pipeline, packs, results, (landing or {}).get("problems", ()))
            run_id = get_current_context()["run_id"]
            notify.tell_of_run(pipeline, run_id, None if source == ONE_OFF else source, told.pop("lost"))
        if missing := told["not_loaded"]:
            ti.xcom_push("return_value", told)
            raise AirflowFailException(f"{count(len(missing), 'file')} could not be loaded:\n{named(missing)}")
        if (died := len(packs) - len(parts)) > 0:
            ti.xcom_push("return_value", told)
            raise AirflowFailException(f"{count(died, 'loading task')} did not end, but all files are in the ledger.")
        return told

    return verdict(packs)
