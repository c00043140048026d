#!/usr/bin/env bash
# A throwaway S3 (moto) for the contract tests: `s3.sh start FOLDER` prints its endpoint, `s3.sh stop FOLDER` ends it.
# Needs the project's environment (make install). Listens on loopback only, on a free port; keeps its buckets in memory.
set -euo pipefail
action=${1:?start or stop} folder=${2:?folder}
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PATH="$project/.venv/bin:$PATH"

case $action in
start)
  needs moto_server "the project (make install)"
  mkdir -p "$folder"
  port=$(free_port)
  launch moto_server -H 127.0.0.1 -p "$port"
  await 30 python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/moto-api/', timeout=2)"
  echo "http://127.0.0.1:$port"
  ;;
stop) halt ;;
*) echo "start or stop" >&2; exit 2 ;;
esac
