"""`python -m hashret.launch`: torchrun for hashret's verbs, which ends with one line where torchrun writes forty.

    python -m hashret.launch --nproc-per-node 4 encode photos

All options before the verb are torchrun's, for several machines, too.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Start a verb in several processes; exits with the status of the one that failed first."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import determine_local_world_size, get_args_parser, run

    parser = get_args_parser()
    parser.prog, parser.description = "python -m hashret.launch", "torchrun's options, then a verb of hashret"
    options = parser.parse_args(arguments)
    try:
        processes = determine_local_world_size(options.nproc_per_node)
    except ValueError as error:
        parser.error(str(error))
    if processes < 1:
        parser.error(f"--nproc-per-node is a number of processes, not {processes}")
    threads = (os.cpu_count() or 1) // processes
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    options.training_script_args = [options.training_script, *options.training_script_args]
    options.training_script, options.module = "hashret", True
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the process that failed has said why
    try:
        run(options)
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(f"hashret: process {number} was killed by {failure.signal_name()}", file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except (AssertionError, OSError, RendezvousError, RuntimeError, ValueError) as error:
        # Of an option, which torchrun looks at when it starts, or of the machines, which did not find one another. What
        # goes wrong in a verb is an error of another process, and comes as one of the two above.
        parser.error(" ".join(str(error).split()) or "these options do not go together")


if __name__ == "__main__":
    main()
