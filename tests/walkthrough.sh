#!/usr/bin/env bash
# Runs the commands of the README's walk-through as a reader does: `make local` in one terminal, the rest in another.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'end' EXIT

# Ends `make local` as Ctrl-C does, and checks that no process is left.
end() {
  local status=$?
  trap - EXIT
  if [[ -n ${local_cloud:-} ]]; then
    kill -INT -- "-$local_cloud" 2>/dev/null || true
    wait "$local_cloud" 2>/dev/null || true
    if pgrep -g "$local_cloud" >/dev/null 2>&1; then
      echo "walkthrough: make local left processes behind:" >&2
      ps -o pid,args -g "$local_cloud" >&2
      status=1
    fi
  fi
  [[ $status == 0 ]] || cat "$work/local" >&2
  rm -rf "$work"
  exit "$status"
}

# The `$ ` lines of the console blocks below a heading of the README.
commands_below() {
  awk -v heading="## $1" '
    /^## / { below = ($0 == heading) }
    /^ *```/ { block = below && /console/; next }
    block && /^\$ / { print substr($0, 3) }
  ' README.md
}

set -m
make local >"$work/local" 2>&1 &
local_cloud=$!
set +m
for _ in $(seq 900); do
  if grep -q "The local cloud is up" "$work/local"; then
    break
  fi
  kill -0 "$local_cloud" 2>/dev/null || { echo "walkthrough: make local ended early" >&2; exit 1; }
  sleep 1
done
grep -q "The local cloud is up" "$work/local"

commands_below "Try it: your own pushes" >"$work/commands"
[[ $(wc -l <"$work/commands") -ge 5 ]] || { echo "walkthrough: the README's commands were not found" >&2; exit 1; }
cat "$work/commands"
# The execution that the last command starts has to end as the README says.
cat >>"$work/commands" <<'CHECK'
for _ in $(seq 120); do
  status=$(aws stepfunctions describe-execution --query status --output text \
    --execution-arn "arn:aws:states:us-east-1:000000000000:execution:test-deploy:$id-2")
  [[ $status == RUNNING ]] || break
  sleep 1
done
[[ $status == SUCCEEDED ]] || { echo "walkthrough: the execution $id-2 ended as $status" >&2; exit 1; }
curl --insecure --silent --fail --header "X-Pulse-Render-Affinity: $id" https://127.0.0.1:8443/ | grep "$id"
CHECK
bash -euo pipefail "$work/commands"
echo "walkthrough: the commands of the README succeeded"
