--[[
  Reads a page of a run's history. Changes nothing.

  KEYS[1]  run (hash)
  KEYS[2]  events (stream)
  ARGV[1]  version after which to begin
  ARGV[2]  events to stop at
  ARGV[3]  bytes of events read before this page
  ARGV[4]  bytes to stop at: before the event that passes them, unless it is the first of all

  Returns {version, {id, nonce, event, id, nonce, event, ...}}, or {} where the run is deleted.
]]
local version = redis.call("HGET", KEYS[1], "version")
if not version then return {} end
local last, left, bytes, events = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
-- Eight at a time, because one event may be a megabyte.
while left > 0 do
  local entries = redis.call("XRANGE", KEYS[2], last + 1 .. "-0", "+", "COUNT", math.min(8, left))
  left = #entries == 8 and left - 8 or 0
  for _, entry in ipairs(entries) do
    local before = bytes
    bytes = bytes + #entry[2][4]
    if bytes > tonumber(ARGV[4]) and before > 0 then return {tonumber(version), events} end
    last = string.match(entry[1], "%d+")
    events[#events + 1], events[#events + 2], events[#events + 3] = entry[1], entry[2][2], entry[2][4]
  end
end
return {tonumber(version), events}
