--[[
  Reads a page of a run's history. Changes nothing.

  KEYS     run (hash), events (stream)
  ARGV[1]  version after which to begin     ARGV[2]  number of events to stop at
  ARGV[3]  bytes of events read before this page
  ARGV[4]  bytes to stop at: before the event that exceeds them, unless it is the first of all
  Returns {version, {id, fields and values, id, ...}}, or {} if the run is deleted. Safe to repeat.
]]
--- @include head
local head = read_head(KEYS[1])
if not head then return {} end
require_events(KEYS[2], head)
local last, left, bytes, events = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}
-- At most ARGV[2] events, eight at a time, because one event may be a megabyte.
while left > 0 do
  local entries = redis.call("XRANGE", KEYS[2], string.format("%.0f-0", last + 1), "+", "COUNT", math.min(8, left))
  left = #entries == 8 and left - 8 or 0
  for _, entry in ipairs(entries) do
    local size = #(entry[2][6] or "")
    if bytes > 0 and bytes + size > tonumber(ARGV[4]) then return {head.version, events} end
    bytes, last = bytes + size, string.match(entry[1], "%d+")
    events[#events + 1], events[#events + 2] = entry[1], entry[2]
  end
end
return {head.version, events}
