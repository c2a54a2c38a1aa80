"""`python -m tests.simulator --seed 7` tells a history, `--histories 1000000` tries many and tells one that fails."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulator.history import failure_of, trace_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the history that is told, or the first of many")
    parser.add_argument("--histories", type=int, help="how many are tried")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    if given.histories is None:
        failure = failure_of(given.seed)
        sys.exit(failure or print("\n".join(trace_of(given.seed))))
    begun, seeds = time.monotonic(), range(given.seed, given.seed + given.histories)
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        for done, failure in enumerate(pool.map(failure_of, seeds, chunksize=100), 1):
            if failure:
                pool.shutdown(cancel_futures=True)
                sys.exit(failure)
            if done % 1000 == 0 or done == len(seeds):
                print(f"{done:,} histories in {time.monotonic() - begun:,.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
