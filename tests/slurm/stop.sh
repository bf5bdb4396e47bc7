#!/usr/bin/env bash
# End what start.sh DIR has started.
dir=$(realpath "${1:?directory of start.sh}")
for file in "$dir/slurmctld.pid" "$dir/slurmd.pid" "$dir/munge/pid"; do
  if [ -s "$file" ]; then
    kill "$(cat "$file")" 2>/dev/null
  fi
done
exit 0
