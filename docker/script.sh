#!/usr/bin/env bash
# ./script.sh NAME [SESSION|FIT ARGUMENTS]: run a use case's nox session, `train` by default.
#   ./script.sh wf_gwd                          train the demo
#   ./script.sh wf_gwd tests                    any other session by its name
#   ./script.sh wf_gwd --config configs/mlp.yaml   arguments for the trainer
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
[ -f docker/use_cases ] || cd ..

# the table of names is docker/use_cases
names() { awk '!/^#/ && NF { printf "  %-22s %s\n", $1, $2 }' docker/use_cases; }

if [ $# -eq 0 ]; then
  exec bash
fi
use_case=$(awk -v name="$1" '!/^#/ && $1 == name { print $2 }' docker/use_cases)
if [ -z "$use_case" ]; then
  printf 'unknown use case %s; there are:\n%s\n' "$1" "$(names)" >&2
  exit 2
fi
shift
session=train
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
  session=$1
  shift
fi
exec nox -f "$use_case/noxfile.py" -s "$session" -- "$@"
