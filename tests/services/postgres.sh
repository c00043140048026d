#!/usr/bin/env bash
# A throwaway PostgreSQL for the contract tests: `postgres.sh start FOLDER` prints its URL, `postgres.sh stop FOLDER` ends it,
# `postgres.sh restart FOLDER` ends it without a word to anybody and starts it again.
# Needs the server's programs (Debian: apt-get install postgresql). Listens on loopback only, on a free port.
set -euo pipefail
action=${1:?start or stop} folder=${2:?folder}
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
bin=$(find /usr/lib/postgresql/*/bin /usr/bin /usr/local/bin -maxdepth 1 -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
needs "${bin:+$bin/}initdb" "PostgreSQL's server (Debian: postgresql)"

# The server refuses to run as root, so root hands it to the package's own user.
as_owner() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

case $action in
start)
  mkdir -p "$folder"
  [ "$(id -u)" != 0 ] || chown postgres "$folder"
  port=$(free_port)
  as_owner "$bin/initdb" -D "$folder/data" -U mulle --auth=trust -E UTF8 --no-sync >"$folder.log" 2>&1
  as_owner "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/server.log" \
    -o "-p $port -k $folder -c listen_addresses=127.0.0.1 -c fsync=off" start >>"$folder.log" 2>&1
  echo "postgresql://mulle@127.0.0.1:$port/postgres"
  ;;
restart) as_owner "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/server.log" -m immediate restart >>"$folder.log" 2>&1 ;;
stop) [ ! -f "$folder/data/postmaster.pid" ] || as_owner "$bin/pg_ctl" -D "$folder/data" -m immediate stop >/dev/null ;;
*) echo "start, restart or stop" >&2; exit 2 ;;
esac
