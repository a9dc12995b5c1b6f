-- Closed load for wrk against the cache: a share of the requests repeats a few prompts, the others are all different.
-- wrk -s wrk_cache.lua URL -- PATH SHARE PROMPTS SEED
local words = {"fix", "the", "race", "in", "our", "cache", "write", "a", "parser", "for", "dates", "review", "this",
  "endpoint", "design", "schema", "of", "an", "audit", "log", "explain", "why", "test", "fails", "on", "linux", "add",
  "retries", "to", "client", "refactor", "module", "into", "two", "and", "document", "it", "make", "query", "faster"}
local started = 0

function setup(thread)
  started = started + 1
  thread:set("number", started)
end

local function body(name, random)
  local said = {}
  for place = 1, 24 do said[place] = words[random(#words)] end
  return '{"request":{"prompt":"Task ' .. name .. ": " .. table.concat(said, " ") .. '"}}'
end

function init(args)
  path = args[1] or "/v1/quantum/route"
  share = tonumber(args[2] or "0.8")
  local prompts, seed = tonumber(args[3] or "500"), tonumber(args[4] or "1")
  headers = {["Content-Type"] = "application/json"}
  math.randomseed(seed * 7919)
  known = {}
  for place = 1, prompts do known[place] = wrk.format("POST", path, headers, body(seed .. "-known-" .. place, math.random)) end
  math.randomseed(seed * 104729 + number * 7919)
  count = 0
end

function request()
  if math.random() < share then return known[math.random(#known)] end
  count = count + 1
  return wrk.format("POST", path, headers, body(number .. "-" .. count, math.random))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f, '
    .. '"errors": %d, "refused": %d}\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
