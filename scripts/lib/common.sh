# shellcheck shell=bash
# Sourced by the scripts beside this folder: where things are, how to speak, how to build.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() {
    say "${0##*/}: $*"
    exit 1
}

# The comment at the head of the script.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# quietly NAME COMMAND...: its output is shown only when it fails.
quietly() {
    local log code=0
    log=$(mktemp)
    "${@:2}" >"$log" 2>&1 </dev/null || code=$?
    if [ "$code" != 0 ]; then
        tail -n 100 "$log" >&2
        say "$1 failed (exit code $code)"
    fi
    rm -f "$log"
    return "$code"
}

# configure FOLDER OPTION...: sets the folder up, or gives it these options when it is there already.
configure() {
    local folder=$1
    shift
    if [ -f "$folder/build.ninja" ]; then
        quietly "meson configure" meson configure "$folder" "$@"
    else
        quietly "meson setup" meson setup "$folder" "$root" "$@"
    fi
}

# build FOLDER OPTION...: configures it, then builds it.
build() { configure "$@" && quietly "the build" ninja -C "$1"; }
