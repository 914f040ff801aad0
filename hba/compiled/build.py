"""Makes the compiled modules: `python -m hba.compiled.build`, for `scripts/compile`; `scripts/launch` has it done, too.

Needs mypy, setuptools and mypy_extensions (the extra `compile`), a C compiler and Python's headers. Takes two minutes
of a processor, and uses all there are. What is there already is not made again; of builds of other sources the newest
few stay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hba.compiled import GROUP, SUFFIX, folder, module_name, sources
from hba.errors import EXIT_INTERNAL, EXIT_OK, EXIT_PERMISSION, EXIT_SETUP, HbaError
from hba.terminal import telling

KEPT = 5  # builds; a developer's branches take turns

_SETUP = """\
import sys
from concurrent.futures import ThreadPoolExecutor
from setuptools import setup
from setuptools.command.build_ext import build_ext
from mypyc.build import mypycify
names, work, jobs = sys.argv.pop(1).split(","), sys.argv.pop(1), int(sys.argv.pop(1))

class BuildExt(build_ext):
    # `build_ext --parallel` is for several extensions, and nearly all of ours is in one.
    def build_extensions(self):
        compile_in_turn = self.compiler.compile

        def compile(sources, **options):
            with ThreadPoolExecutor(jobs) as pool:
                made = list(pool.map(lambda source: compile_in_turn([source], **options), sources))
            return [name for names in made for name in names]

        self.compiler.compile = compile
        super().build_extensions()

setup(
    name={group!r},
    cmdclass={{"build_ext": BuildExt}},
    packages=[],
    ext_modules=mypycify(["--config-file=", "--ignore-missing-imports", f"--cache-dir={{work}}/mypy", *names],
                         opt_level="2", debug_level="0", multi_file=True, group_name={group!r},
                         target_dir=f"{{work}}/c"),
)
"""


class DoesNotCompile(HbaError):
    """Ours to mend, unlike a compiler that is missing."""

    exit_code = EXIT_INTERNAL


def build() -> Path:
    """The folder with the modules. Raises `HbaError` with what is missing; `DoesNotCompile`."""
    where = folder()
    if where.is_dir():
        return where
    check()
    package = Path(__file__).parent.parent
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hba-compile-", dir=where.parent) as work:
        script = Path(work) / "setup.py"
        script.write_text(_SETUP.format(group=GROUP), encoding="utf-8")
        names = ",".join(str(source.relative_to(package.parent)) for source in sources())
        jobs = str(len(os.sched_getaffinity(0)))
        command = [sys.executable, str(script), names, work, jobs, "-q", "build_ext"]
        command += ["--build-lib", f"{work}/lib", "--build-temp", f"{work}/temp", "--parallel", jobs]
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "HBA_PURE": "1"}
        said = subprocess.run(command, cwd=package.parent, env=environment, capture_output=True, text=True)
        if said.returncode:
            lines = (said.stderr + said.stdout).strip().splitlines()
            lines = [line for line in lines if "error" in line] or lines
            raise DoesNotCompile("the port cannot be compiled; " + "; ".join(lines[-3:]))
        made = Path(work) / "lib"
        missing = [name for source in sources() if not _file(made, name := module_name(source)).exists()]
        if missing:
            raise DoesNotCompile(f"the compiler made no module for {', '.join(missing)}")
        made.chmod(0o755)
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(where)
    builds = sorted(where.parent.iterdir(), key=lambda build: build.stat().st_mtime)
    for old in builds[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return where


def _file(root: Path, name: str) -> Path:
    *packages, last = name.split(".")
    return root.joinpath(*packages, last + SUFFIX)


def check() -> None:
    """Raises `HbaError` with what is missing."""
    wanted = {
        "mypyc": "pip install 'hba[compile]'",
        "setuptools": "pip install 'hba[compile]'",
    }
    for module, step in wanted.items():
        if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode:
            raise HbaError(f"compiling needs {module}; {step}")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise HbaError(f"compiling needs the C compiler {compiler}; apt-get install gcc, or set CC")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise HbaError("compiling needs Python's headers; apt-get install python3-dev")


def not_kept(error: OSError) -> str:
    """What there is to say about a cache that cannot be written."""
    return f"the compiled modules cannot be kept; {error}; set HBA_CACHE to another folder"


def main() -> int:
    try:
        print(build())
    except HbaError as error:
        code = error.exit_code if isinstance(error, DoesNotCompile) else EXIT_SETUP
        telling.tell(str(error), code)
        return code
    except OSError as error:
        telling.tell(not_kept(error), EXIT_PERMISSION)
        return EXIT_PERMISSION
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
