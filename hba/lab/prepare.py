"""Make what the lab needs and keeps: QEMU, guest image, kernel, and whether KVM runs it.

`python -m hba.lab.prepare [KERNEL ...]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hba.errors import HbaError
from hba.lab import accelerator, image, kernel, paths, qemu
from hba.lab.cache import Cache
from hba.lab.progress import Progress


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


def main() -> None:
    """The command."""
    try:
        prepare(sys.argv[1:])
    except HbaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
