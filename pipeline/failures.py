"""How a program ends: one clear message and exit status 1, without a traceback, for every foreseeable mistake."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline.console import error_console
from schemas.errors import UserError


@contextmanager
def told_clearly(interrupted: str) -> Iterator[None]:
    """Turn errors meant for people, disk errors and Ctrl-C into a message and exit status 1.

    Args:
        interrupted: what to say after Ctrl-C, above all how to go on.
    """
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(
            f"The operating system refused: {error.strerror or error}{where}. "
            "Mend that place or its permissions, or name another, and run the same command again."
        )
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        _fail(
            f"The device ran out of memory: {str(error).splitlines()[0]} Use smaller batches, for example "
            "--set student.training.batch_size=1, a smaller detector, or --device cpu."
        )
    except KeyboardInterrupt:
        _fail(f"Interrupted. {interrupted}")


def _fail(message: str) -> None:
    error_console.print(f"error: {message}", style="red", soft_wrap=True)
    raise typer.Exit(1)
