"""Steps that live in processes of their own and take turns: only the one that is asked works.

What a step pays for memory depends on what else has grown its process's heap: memory that one way freed spares the
other from asking the kernel for it. A user has one way in a process, never both, so a comparison gives each its own.

A worker builds its step, takes it a few times, says that it is ready, and answers each line with the seconds of one
more step until its input closes. All workers hold their memory until the last one ends.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import IO

WARM_UP = 2
"""Steps before the first that counts: the second grows the heap to the size at which it stays."""

READY = b"ready\n"
PATIENCE = 10.0
"""Seconds that a worker has to end by itself once its input is closed."""


def serve(build: Callable[[], Callable[[], float]]) -> None:
    """A worker's whole life. What else the step prints goes to stderr."""
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        step = build()
        for _ in range(WARM_UP):
            step()
        print(READY.decode().strip(), file=answers, flush=True)
        for _ in sys.stdin:
            print(step(), file=answers, flush=True)


@contextmanager
def workers(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Callable[[], float]]]:
    """Steps by name, each in the process that its command starts; all have ended when the block has.

    They are built and warmed up one after the other, so that none takes the cores from another.

    Raises:
        RuntimeError: a worker ended before its time; with what it wrote to stderr.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(_worker(name, command)) for name, command in commands.items()}


@contextmanager
def _worker(name: str, command: Sequence[str]) -> Iterator[Callable[[], float]]:
    # A file, since nobody reads a pipe while the worker works. Unbuffered, since closing flushes what a dead one left.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def answer() -> bytes:
            line = answers.readline()
            if not line.endswith(b"\n"):
                raise RuntimeError(_death(name, process.wait(), errors))
            return line

        def step() -> float:
            with suppress(BrokenPipeError):  # it has ended: reading its answer says why
                requests.write(b"\n")
            return float(answer())

        try:
            ready = answer()
            assert ready == READY, f"the worker for {name!r} began with {ready!r}"
            yield step
        except BaseException:
            process.terminate()  # it may be within a step, which can take minutes
            raise
        finally:
            requests.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            answers.close()


def _death(name: str, code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip() or "nothing"
    # A negative code is the signal; 9 comes from the kernel when memory runs out.
    hint = "; memory may have run out: try a smaller --batch" if code == -9 else ""
    return f"the process that takes {name!r} steps ended with exit code {code}{hint}. Its stderr:\n{said}"
