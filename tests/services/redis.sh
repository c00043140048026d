#!/usr/bin/env bash
# A throwaway Redis for the contract tests: `redis.sh start FOLDER` prints its URL, `redis.sh stop FOLDER` ends it.
# Needs redis-server (Debian: apt-get install redis-server). Listens on loopback only, on a free port; keeps nothing.
set -euo pipefail
action=${1:?start or stop} folder=${2:?folder}
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

case $action in
start)
  needs redis-server "Redis (Debian: redis-server)"
  needs redis-cli "Redis's tools (Debian: redis-tools)"
  mkdir -p "$folder"
  port=$(free_port)
  launch redis-server --bind 127.0.0.1 --port "$port" --dir "$folder" --save "" --appendonly no
  await 10 redis-cli -h 127.0.0.1 -p "$port" -e ping
  echo "redis://127.0.0.1:$port/0"
  ;;
stop) halt ;;
*) echo "start or stop" >&2; exit 2 ;;
esac
