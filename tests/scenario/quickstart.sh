#!/bin/bash
# The first thing a newcomer does: scripts/quickstart prints an audit of this repository whose numbers are true,
# and leaves nothing running.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox git pgrep

if [ "$COX_BUILD" != "$scenario_root/build" ] || ! git -C "$scenario_root" rev-parse >/dev/null 2>&1; then
    skip quickstart "it uses the folder build/ of a git checkout"
    exit 0
fi

# What git tracks and is a regular file: the audit's own definition, computed another way.
tracked() { git -C "$scenario_root" ls-files -s | sed -n 's/^100[0-9]* [0-9a-f]* 0\t//p'; }
in_tree() { cd "$scenario_root" && tracked | tr '\n' '\0' | xargs -0 "$@"; }
n_files=$(tracked | wc -l)
n_lines=$(in_tree cat | wc -l)
n_bytes=$(in_tree cat | wc -c)

check_exit "quickstart: succeeds" 0 "$scenario_root/scripts/quickstart"
check_match "quickstart: its numbers are those of wc" "^$n_files files, $n_bytes bytes, $n_lines lines\.$" "$scenario_dir/out"
check_equal "quickstart: leaves no process behind" "" "$(pgrep -f cox-quickstart || true)"
finish
