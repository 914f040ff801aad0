# What the scripts beside it share; sourced, with $project set to the source tree. HBA_PYTHON chooses the interpreter.

# venv_is_ready [EXTRA]: whether .venv has the project in it, with EXTRA, and pyproject.toml has not changed since; `dev` has
# all there is.
venv_is_ready() {
    for stamp_ in "$project/.venv/.installed${1:+-$1}" "$project/.venv/.installed-dev"; do
        ! cmp -s "$project/pyproject.toml" "$stamp_" || return 0
    done
    return 1
}

# setup_venv [EXTRA]: makes .venv with the project in it; EXTRA is `compile` for scripts/compile, `dev` for the development
# tools. Does nothing when it is there. All it prints goes to standard error.
setup_venv() {
    ! venv_is_ready "$@" || return 0
    venv_=$project/.venv extra_=${1:-}
    python_=${HBA_PYTHON:-$(choose_python)}
    if [ -z "$python_" ]; then
        setup_packages run
        python_=$(choose_python)
    fi
    "${python_:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: Python 3.11 or later is needed, with venv; install python3-venv, or set HBA_PYTHON" >&2
        exit 2
    }
    if [ ! -x "$venv_/bin/pip" ]; then
        echo "making the virtual environment $venv_ ..." >&2
        "${python_:-python3}" -m venv "$venv_"
    fi
    echo "installing the project's Python packages ..." >&2
    # Errors only: what pip has to remark about the places this machine's pip is told to look in is not the user's business.
    # `compat`: a plain path instead of an import hook, and compiled once: both are start-up time of `hba serve`.
    "$venv_/bin/pip" install -qq --disable-pip-version-check \
        --config-settings editable_mode=compat --editable "$project${extra_:+[$extra_]}" >&2
    "$venv_/bin/python" -m compileall -q "$project/hba" >&2
    cp "$project/pyproject.toml" "$venv_/.installed${extra_:+-$extra_}"
}

# choose_python: the distribution's own Python before another on PATH: it is what Debian's libnbd binding is made for, and
# built with optimisations that private builds often lack, which the hot path is felt in. Nothing when none will do.
choose_python() {
    for candidate_ in /usr/bin/python3 python3; do
        if "$candidate_" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate_"
            return
        fi
    done
}

# setup_packages WHEN...: installs what scripts/packages lists under one of WHEN and this machine lacks. What cannot be
# installed is told, and the rest goes on without: whoever needs it says so then, and its tests are skipped by name.
setup_packages() {
    missing_=$(missing_packages "$@")
    # shellcheck disable=SC2086 # they are words
    [ -z "$missing_" ] || install_packages $missing_ ||
        echo "going on without $missing_ (sudo apt-get install -y $missing_)" >&2
}

# missing_packages WHEN...: the packages, in one line.
missing_packages() {
    while read -r when_ what_ package_ _; do
        case " $* " in *" $when_ "*) ;; *) continue ;; esac
        [ "$when_" != user ] || [ "$(id -u)" != 0 ] || continue
        case $what_ in
        python:*) /usr/bin/python3 -c "import ${what_#python:}" 2>/dev/null ;;
        /*) [ -e "$what_" ] ;;
        *) PATH="$PATH:/usr/sbin:/sbin" command -v "$what_" >/dev/null ;;
        esac || printf '%s ' "$package_"
    done <"$project/scripts/packages"
}

# install_packages NAME...: with apt-get as root, or with sudo when the person at the terminal says yes; else returns 1.
install_packages() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        apt_get_="env DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends"
    elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 2 ]; then
        printf 'These packages are missing: %s. Install them with sudo apt-get? [Y/n] ' "$*" >&2
        read -r answer_ || return 1
        case $answer_ in [nN]*) return 1 ;; esac
        apt_get_="sudo DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends"
    else
        return 1
    fi
    echo "installing $* with apt-get ..." >&2
    $apt_get_ install "$@" </dev/null >/dev/null 2>&1 && return
    # A fresh machine has no package lists, or old ones. What apt-get says is shown when it fails.
    said_=$({ $apt_get_ update && $apt_get_ install "$@"; } </dev/null 2>&1) || { echo "$said_" >&2 && return 1; }
}
