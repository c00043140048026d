-- Sends the lines of a file as JSON bodies, one after another, and tells what came of it as one line of JSON.
local requests, at = {}, 0

function init(arguments)
  local headers = { ["Content-Type"] = "application/json" }
  for line in io.lines(arguments[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local found = summary.errors
  local errors = found.connect + found.read + found.write + found.status + found.timeout
  print(string.format('{"requests": %d, "seconds": %.6f, "errors": %d, "p50": %.6f, "p99": %.6f}', summary.requests,
    summary.duration / 1e6, errors, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
