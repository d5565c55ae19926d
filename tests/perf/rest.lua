-- Requests for wrk: `-- METHOD LINES TOKENS`. LINES holds a path a line, or a body of POST /api/v1/orders a line.
-- They are put together before the first is sent; what came back is one line of JSON.
local requests, at = {}, 0

local function lines_of(path)
  local found = {}
  for line in io.lines(path) do found[#found + 1] = line end
  return found
end

function init(args)
  local tokens = lines_of(args[3])
  for number, line in ipairs(lines_of(args[2])) do
    local headers = { ["Authorization"] = "Bearer " .. tokens[number % #tokens + 1] }
    if args[1] == "GET" then
      requests[number] = wrk.format("GET", line, headers)
    else
      headers["Content-Type"] = "application/json"
      requests[number] = wrk.format("POST", "/api/v1/orders", headers, line)
    end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format(
    'JSON {"requests": %d, "failed": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f}',
    summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
