"""What Redis must do in one step, in Lua. All keys of a script share one hash tag, and so one slot of a Cluster.

An entry of the outcome stream is flat: i identity, d decision, m model, t time, p payload, s standing ("" or
"late"), and rt and rp, time and payload of the report that it replaces.
"""

from __future__ import annotations

from typing import Final

APPEND_OUTCOMES: Final = """
local stream, standing, of = KEYS[1], KEYS[2], KEYS[3]
local results = {}
for at = 1, #ARGV, 5 do
  local identity, decision, model, occurred, payload = unpack(ARGV, at, at + 4)
  local known = redis.call('HGET', standing, identity)
  local before = known and redis.call('XRANGE', stream, known, known)[1]
  local result, id = 'new', nil
  local fields = {'i', identity, 'd', decision, 'm', model, 't', occurred, 'p', payload, 's', ''}
  if before then
    local time, text = before[2][8], before[2][10]
    if identity:sub(1, 1) == 'o' or (tonumber(time) == tonumber(occurred) and text == payload) then
      result = 'duplicate'
    elseif tonumber(occurred) <= tonumber(time) then
      result, fields[12] = 'late', 'late'
    else
      result = 'replaced'
      fields[13], fields[14], fields[15], fields[16] = 'rt', time, 'rp', text
    end
  end
  if result ~= 'duplicate' then
    id = redis.call('XADD', stream, '*', unpack(fields))
    if result ~= 'late' then redis.call('HSET', standing, identity, id) end
    local others = redis.call('HGET', of, decision)
    redis.call('HSET', of, decision, others and (others .. ',' .. id) or id)
  end
  results[#results + 1] = result
end
return results
"""
"""KEYS stream, standing, of; ARGV five a report: identity, decision, model, time, payload."""

OUTCOMES_OF: Final = """
local entries = {}
for id in string.gmatch(redis.call('HGET', KEYS[2], ARGV[1]) or '', '[^,]+') do
  entries[#entries + 1] = redis.call('XRANGE', KEYS[1], id, id)[1]
end
return entries
"""
"""KEYS stream, of; ARGV decision."""

TRIM_OUTCOMES: Final = """
local stream, standing, of = KEYS[1], KEYS[2], KEYS[3]
local length = redis.call('XLEN', stream)
local surplus, gone = length - tonumber(ARGV[2]), 0
for at, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[3])) do
  local id, identity, decision = entry[1], entry[2][2], entry[2][4]
  if at > surplus and tonumber(id:match('^%d+')) >= tonumber(ARGV[1]) then break end
  if redis.call('HGET', standing, identity) == id then redis.call('HDEL', standing, identity) end
  local rest = (redis.call('HGET', of, decision) or ''):sub(#id + 2)
  if rest == '' then redis.call('HDEL', of, decision) else redis.call('HSET', of, decision, rest) end
  gone = at
end
if gone > 0 then redis.call('XTRIM', stream, 'MAXLEN', '=', length - gone) end
return gone
"""
"""KEYS stream, standing, of; ARGV oldest time to keep in ms, most entries, most to remove."""

PLACES: Final = """
local rank = redis.call('ZRANK', KEYS[1], ARGV[2])
local first = rank and rank + 1 or redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1])
return redis.call('ZRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
"""
"""KEYS times; ARGV time, id, limit. Where the id is gone, others of its time may be returned again."""

TRIM_DECISIONS: Final = """
local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[2])
surplus = math.max(surplus, redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[1]))
surplus = math.min(surplus, tonumber(ARGV[3]))
if surplus <= 0 then return {} end
local ids = redis.call('ZRANGE', KEYS[1], 0, surplus - 1)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, surplus - 1)
return ids
"""
"""KEYS times; ARGV oldest time to keep in s, most rows, most to remove."""

PUT_POLICY: Final = """
local cards, blobs = KEYS[2], KEYS[3]
local number = redis.call('INCR', KEYS[1])
redis.call('HSET', cards, number, ARGV[1])
redis.call('HSET', blobs, number, ARGV[2])
local numbers = {}
for _, text in ipairs(redis.call('HKEYS', cards)) do numbers[#numbers + 1] = tonumber(text) end
table.sort(numbers)
local current = tonumber(redis.call('GET', KEYS[4]) or '0')
for at = 1, #numbers - tonumber(ARGV[3]) do
  if numbers[at] ~= current then
    redis.call('HDEL', cards, numbers[at])
    redis.call('HDEL', blobs, numbers[at])
  end
end
return number
"""
"""KEYS counter, cards, blobs, current; ARGV card, blob, how many to keep."""

SET_CURRENT: Final = """
if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
if ARGV[1] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[1]) end
return 1
"""
"""KEYS cards, current; ARGV number or "", expected number or ""."""

PUT_DOCUMENT: Final = """
local versions, values, history = KEYS[1], KEYS[2], KEYS[3]
local name, value, expected, keep = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if tonumber(redis.call('HGET', versions, name) or '0') ~= expected then return 0 end
if keep > 0 then
  local old = redis.call('HGET', values, name)
  if old then redis.call('LPUSH', history, old) end
  redis.call('LTRIM', history, 0, keep - 1)
else
  redis.call('DEL', history)
end
redis.call('HSET', versions, name, string.format('%.0f', expected + 1))
redis.call('HSET', values, name, value)
return 1
"""
"""KEYS versions, values, history; ARGV name, value, expected version, how many earlier ones to keep."""

ACQUIRE_LEASE: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""KEYS lease; ARGV owner, ttl in ms."""

RENEW_LEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS lease; ARGV owner, ttl in ms."""

RELEASE_LEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
"""KEYS lease; ARGV owner."""
