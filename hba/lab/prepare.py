"""Make what the lab needs and keeps: QEMU, guest image, kernel, and whether KVM runs it.

`python -m hba.lab.prepare [KERNEL ...]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hba.lab import accelerator, image, interruption, kernel, paths, qemu
from hba.lab.cache import Cache
from hba.lab.interruption import Interrupted
from hba.lab.progress import Progress
from hba.lab.space import full_disk
from hba.places import cache_root
from hba.terminal import entry, screen


def prepare(kernels: Sequence[str]) -> None:
    """Make what is missing; with no `kernels`, the recipe's default one."""
    paths.require_tree()
    progress = Progress()
    cache = Cache(progress)
    chosen = qemu.find(cache)
    progress.say(f"QEMU {chosen.version()}: {chosen.source}")
    recipe = image.recipe()
    progress.say(f"guest image: {image.find(recipe, cache)}")
    for wanted in kernels or [recipe["kernel"]["default"]]:
        found = kernel.find(wanted, recipe, cache)
        progress.say(f"kernel {found.release}: {found.image.parent}")
    if accelerator.decide(accelerator.default(), chosen, cache, lambda: found.image).chosen == "kvm":
        progress.say("guests run with KVM")


@click.command()
@click.argument("kernels", metavar="[KERNEL]...", nargs=-1)
def command(kernels: tuple[str, ...]) -> None:
    """Make what guests need and the cache does not have: QEMU, guest image, and each KERNEL (as 6.12)."""
    prepare(kernels)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    try:
        name = "python -m hba.lab.prepare"
        return entry.run(command, name, arguments, lambda error: full_disk(error, cache_root()))
    except Interrupted as interrupted:
        return interruption.told(interrupted)


def main() -> None:
    """The command."""
    screen.prepare_streams()
    interruption.listen()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
