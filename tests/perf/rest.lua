-- Requests for wrk: `-- PATHS BODIES WRITES TOKENS`. PATHS holds a path to read a line, BODIES a body of
-- POST /api/v1/orders a line; WRITES is the share of requests that are writes, from 0 to 1.
-- They are put together before the first is sent; what came back is one line of JSON.
local requests, at = {}, 0

local function lines_of(path)
  local found = {}
  for line in io.lines(path) do found[#found + 1] = line end
  return found
end

function init(args)
  local paths, bodies, writes, tokens = lines_of(args[1]), lines_of(args[2]), tonumber(args[3]), lines_of(args[4])
  for number = 1, #paths do
    local headers = { ["Authorization"] = "Bearer " .. tokens[number % #tokens + 1] }
    if math.floor(number * writes) == math.floor((number - 1) * writes) then
      requests[number] = wrk.format("GET", paths[number], headers)
    else
      headers["Content-Type"] = "application/json"
      requests[number] = wrk.format("POST", "/api/v1/orders", headers, bodies[number])
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
    'JSON {"requests": %d, "failed": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "p999_ms": %f}',
    summary.requests,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
