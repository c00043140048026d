# What the scripts of this folder share; sourced, with $folder set. A server's process id and log stand in its folder.

needs() { command -v "$1" >/dev/null || { echo "no $1 found: install $2" >&2; exit 2; }; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# launch COMMAND...: in the background and in a session of its own, so that it outlives the caller's terminal.
launch() {
  setsid "$@" >"$folder/server.log" 2>&1 </dev/null &
  echo $! >"$folder/server.pid"
}

alive() { [ -f "$folder/server.pid" ] && kill -0 "$(cat "$folder/server.pid")" 2>/dev/null; }

# await SECONDS COMMAND...: until the command succeeds; gives up when the server ended or the time is over.
await() {
  local end=$((SECONDS + $1)) && shift
  until "$@" >/dev/null 2>&1; do
    if ! alive || ((SECONDS >= end)); then
      echo "the server did not start; the end of $folder/server.log:" >&2
      tail -n 20 "$folder/server.log" >&2
      halt
      exit 1
    fi
    sleep 0.1
  done
}

# End the server, at once if it does not within 10 s; nothing to do is no error.
halt() {
  if alive; then
    kill "$(cat "$folder/server.pid")"
    for _ in $(seq 100); do alive || break; sleep 0.1; done
    ! alive || kill -9 "$(cat "$folder/server.pid")"
  fi
  rm -f "$folder/server.pid"
}
