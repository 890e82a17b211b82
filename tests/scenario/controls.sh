#!/bin/bash
# The checks of these scripts, checked: faults are planted in what they look at, and they must find each.
. "$(dirname "$0")/lib.sh"
need_programs python3
python3 "$scenario_root/tests/scenario/controls.py"
