--[[
  Reads a page of a run's history. Changes nothing.

  KEYS     run (hash), events (stream)
  ARGV[1]  version after which to begin
  ARGV[2]  number of events to stop at
  ARGV[3]  bytes of events read before this page
  ARGV[4]  bytes to stop at: before the event that exceeds them, unless it is the first of all

  Returns {version, {id, nonce, time, event, id, nonce, ...}}, or {} if the run is deleted. Safe to repeat.
]]
local version = redis.call("HGET", KEYS[1], "version")
if not version then return {} end
local last, left, bytes, events = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
-- At most ARGV[2] events, eight at a time, because one event may be a megabyte.
while left > 0 do
  local entries = redis.call("XRANGE", KEYS[2], string.format("%.0f-0", last + 1), "+", "COUNT", math.min(8, left))
  left = #entries == 8 and left - 8 or 0
  for _, entry in ipairs(entries) do
    local nonce, time, event = entry[2][2], entry[2][4], entry[2][6]
    if bytes > 0 and bytes + #event > tonumber(ARGV[4]) then return {tonumber(version), events} end
    bytes, last = bytes + #event, string.match(entry[1], "%d+")
    for _, word in ipairs({entry[1], nonce, time, event}) do events[#events + 1] = word end
  end
end
return {tonumber(version), events}
