"""The command table: ``python -m pipeline COMMAND``."""

import logging

import typer

from pipeline.commands import caches, networks, studies

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run a BEV teacher once, cache what it knows, and train students from the cache.",
)
app.command("make-scenes")(networks.make_scenes)
app.command("demo-teacher")(networks.demo_teacher)
app.command("plan")(caches.plan)
app.command("cache-teacher")(caches.cache_teacher)
app.command("verify-cache")(caches.verify_cache)
app.command("repair-cache")(caches.repair_cache)
app.command("view-cache")(caches.view_cache)
app.command("train-student")(networks.train_student)
app.command("evaluate")(networks.evaluate)
app.command("gains")(studies.gains)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="warning: %(message)s")
    app()


if __name__ == "__main__":
    main()
