"""Groups of commands."""

from __future__ import annotations

import click

from hba.terminal.suggest import did_you_mean


class SuggestingGroup(click.Group):
    """A group that knows which command was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            ctx.fail(f'there is no command "{name}"{hint}')
        return super().resolve_command(ctx, args)
