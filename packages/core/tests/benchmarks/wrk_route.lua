-- Closed load for wrk: every prompt is different, and no answer may come from a cache.
-- wrk -s wrk_route.lua URL -- PATH [COLLAPSE]
local words = {"fix", "the", "race", "in", "our", "cache", "write", "a", "parser", "for", "dates", "review", "this",
  "endpoint", "design", "schema", "of", "an", "audit", "log", "explain", "why", "test", "fails", "on", "linux", "add",
  "retries", "to", "client", "refactor", "module", "into", "two", "and", "document", "it", "make", "query", "faster"}
local started = 0

function setup(thread)
  started = started + 1
  thread:set("number", started)
end

function init(args)
  path = args[1] or "/v1/quantum/route"
  collapse = args[2] and ('"collapse_strategy":"' .. args[2] .. '",') or ""
  math.randomseed(number * 7919)
  count = 0
  headers = {["Content-Type"] = "application/json"}
end

function request()
  count = count + 1
  local said = {}
  for place = 1, 24 do said[place] = words[math.random(#words)] end
  local body = '{"request":{"prompt":"Task ' .. number .. "-" .. count .. ": " .. table.concat(said, " ")
    .. '"},"quantum_config":{' .. collapse .. '"cache":"bypass"}}'
  return wrk.format("POST", path, headers, body)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, '
    .. '"errors": %d, "refused": %d}\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
