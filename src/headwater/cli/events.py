"""`headwater events`: how a dataset follows its bucket by itself."""

import typer

from headwater.cli import event_queues, event_setup, event_switches

events_app = typer.Typer(
    name="events",
    help="Automatic upstream: what happens in a bucket is seen at once.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

events_app.command("queue")(event_queues.queue_command)
events_app.command("setup")(event_setup.setup_command)
events_app.command("status")(event_switches.status_command)
events_app.command("on")(event_switches.on_command)
events_app.command("off")(event_switches.off_command)
events_app.command("rotate")(event_switches.rotate_command)
