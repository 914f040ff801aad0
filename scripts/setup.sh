# The project's virtual environment; sourced by the scripts beside it. Set HBA_PYTHON to choose the interpreter.

# setup_venv PROJECT [EXTRA]: makes PROJECT/.venv with the project in it; EXTRA is `dev` for the development tools.
# Does nothing when it is there and pyproject.toml has not changed since. All it prints goes to standard error.
setup_venv() {
    project_=$1 extra_=${2:-}
    stamp_=$project_/.venv/.installed${extra_:+-$extra_}
    if [ -e "$stamp_" ] && cmp -s "$project_/pyproject.toml" "$stamp_"; then
        return
    fi
    python_=${HBA_PYTHON:-$(choose_python)}
    command -v "$python_" >/dev/null || install_packages python3
    "$python_" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: Python 3.11 or later is needed; $python_ is $("$python_" --version 2>&1). Set HBA_PYTHON." >&2
        exit 2
    }
    if [ ! -x "$project_/.venv/bin/pip" ]; then
        # Debian's python3 has no ensurepip until python3-venv is installed.
        "$python_" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
        echo "making the virtual environment $project_/.venv ..." >&2
        "$python_" -m venv "$project_/.venv"
    fi
    echo "installing the project's Python packages ..." >&2
    # `compat`: a plain path instead of an import hook, and compiled once: both are start-up time of `hba serve`.
    "$project_/.venv/bin/pip" install --quiet --disable-pip-version-check \
        --config-settings editable_mode=compat --editable "$project_${extra_:+[$extra_]}" >&2
    "$project_/.venv/bin/python" -m compileall -q "$project_/hba" >&2
    cp "$project_/pyproject.toml" "$stamp_"
}

# choose_python: the distribution's own Python before another on PATH: it is what Debian's libnbd binding is made for, and
# built with optimisations that private builds often lack, which the hot path is felt in. HBA_PYTHON overrides.
choose_python() {
    for candidate_ in /usr/bin/python3 python3; do
        if "$candidate_" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate_"
            return
        fi
    done
    echo python3
}

# install_packages NAME...: with apt-get as root; otherwise says what to run.
install_packages() {
    if [ "$(id -u)" != 0 ]; then
        echo "error: these packages are missing: $*. Run: sudo apt-get install -y $*" >&2
        exit 2
    fi
    echo "installing $* with apt-get ..." >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "$@" >&2; }
}
