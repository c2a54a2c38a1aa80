"""What Airflow shows of a DAG: written for the data engineer who meets it for the first time."""

from collections.abc import Sequence
from typing import Final

from ingest.settings import Source

_TASKS: Final = """
| task | does |
| --- | --- |
| Find new files (`discover`) | lists the bucket and takes away what the ledger knows |
| Load (`load`) | one task for each pack of files, named by what it loads; once done its name counts failed lines |
| List what was loaded (`announcements`) | asks the ledger what this run loaded |
| Tell other DAGs (`announce`) | one asset event for each of these files |
| Which files could not be loaded (`verdict`) | **red if there is one**. Its log has the failed lines by code |

Retrying, clearing or running it twice at once loads nothing twice: the ledger in the warehouse decides.
"""


def source_doc(source: Source) -> str:
    """What this DAG loads, when, and what to do when it is red."""
    schedule = f"every {source.schedule} seconds" if isinstance(source.schedule, int) else f"`{source.schedule}`"
    return f"""
### New {source.format} files of `{source.name}`

Loads what is new under `s3://{source.bucket}/{source.prefix}`{f" (`{source.pattern}`)" if source.pattern else ""},
{schedule if source.schedule else "when it is started by hand"}. A file is in the warehouse once and whole, or not at
all; lines that break a rule are kept. Fix them on the page *Landfall*, or with `ingest failures FILE_ID --lines` and
`ingest redrive`.
{_TASKS}
**Red?** The task *Which files could not be loaded* names them and says why. What did not answer is tried again by later
runs, less and less often; a rejected file waits for a person. Nothing is held up by it.

**To run when files have arrived:** `schedule=[Asset("landfall/{source.name}")]`; `extra` of the event has `file_id`,
`action` and the counts.
"""


ONE_OFF_DOC: Final = f"""
### Your own files or lines, now

Trigger it and fill in the form: addresses in S3, or pasted lines; check or load. Only buckets of sources, the one for
uploads and `allowed_buckets` of `ingest.toml` are read. They take the same way as scheduled files, through the ledger.

A file that belongs to a source (it lies below its prefix or in its archive, was uploaded for it on the page *Landfall*,
or is in the ledger as its file) is loaded by the rules of that source, also here. Pasted lines belong to none.
{
    _TASKS.replace(
        "lists the bucket and takes away what the ledger knows", "finds the files; stores pasted lines"
    ).replace("Find new files (`discover`)", "Find the files (`collect`)")
}
"""

ACTION_DOC: Final = """
### Undo, force, release, ignore, retry, redrive

What a person does to files that the ledger knows: trigger it and fill in the form. Each action is one transaction. The
table `history` keeps who triggered the run, and why.

**Who may trigger this DAG can act on the files of every source.** A task does not know the rights of who triggered it.
Give this right only to those who may run all sources. The pages of *Landfall* ask for more: the right to run the source
of the file, too.

| action | is for files that are | and then they are |
| --- | --- | --- |
| undo | loaded, rejected | undone: their rows are gone, and those of their redrives |
| force | anything | loaded again in the place of their rows, past all limits |
| release | held | loaded; what is there stays |
| ignore | retrying, held, rejected, a copy, undone, not loaded yet | never loaded |
| retry | retrying | tried now |
| redrive | loaded or rejected, with failed lines | completed: the lines that are right now are loaded |
"""

RECONCILE_DOC: Final = """
### Was anything missed?

Compares the buckets, the archive, the ledger and the tables: files that wait, that are tried again and
again or need a person, sources that send nothing (`expect_every`), archived objects that are gone, rows that the ledger
does not know. Red if there is something to look at, and says what; `notify` sends a notice of each
thing once. It repairs nothing: `ingest reconcile --repair` does, where that is safe.
"""


def config_errors_doc(problems: Sequence[str]) -> str:
    """The wrong settings, as a list."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    return f"""
### Some settings are wrong

{listed}

The sound sources are loaded as usual. Fix `ingest.toml` (its path is in `INGEST_CONFIG`) or the environment; this DAG
is gone as soon as Airflow has read it again.
"""
