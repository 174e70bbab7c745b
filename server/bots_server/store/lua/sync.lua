--[[
  Reads what a server has not seen of a run's history (guarantee 2). Changes nothing.

  KEYS     run (hash), events (stream), leases (zset), owners (hash)
  ARGV[1]  version of the last event that the server folded, 0: none
  ARGV[2]  nonce of that event, "": none
  ARGV[3]  number of events to stop at
  ARGV[4]  bytes of events to stop at

  Returns {} if the run is deleted, else {diverged 0 | 1, version, newest snapshot's version, tasks with a lease, also
  one that is over, tasks under a live lease, {fields and values} of each event after the known one}; or the error of a replica, which may be behind its primary.
  Safe to repeat.

  One history: if the known event is trimmed or has another nonce, the server has diverged, whatever was appended
  meanwhile. The known event is compared here and does not travel.
]]
--- @include now
--- @include head
-- Deletes nothing, but a replica refuses it. So does a full disk, which does not matter here.
local refused = redis.pcall("HDEL", KEYS[1], "")
if type(refused) == "table" and string.find(refused.err, "READONLY", 1, true) then return refused end
local head = read_head(KEYS[1])
if not head then return {} end
require_events(KEYS[2], head)
local known, nonce = tonumber(ARGV[1]), ""
if known == head.version then
  nonce = head.nonce
elseif known > 0 then
  nonce = nonce_of(KEYS[2], known)
end
local diverged = nonce ~= ARGV[2] or known > head.version or known + 1 < head.trimmed
local events, bytes, last = {}, 0, known
-- A page: at most ARGV[3] events or ARGV[4] bytes. Eight at a time, because one event may be a megabyte.
while not diverged and last < head.version and last - known < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local entries = redis.call("XRANGE", KEYS[2], last + 1 .. "-0", "+", "COUNT", 8)
  if #entries == 0 then damaged(KEYS[2], "lacks the newest events") end
  for _, entry in ipairs(entries) do
    last = last + 1
    if entry[1] ~= last .. "-0" then damaged(KEYS[2], "lacks " .. last .. "-0") end
    events[#events + 1] = entry[2]
    bytes = bytes + #(entry[2][6] or "")
  end
end
local leases = redis.call("ZCARD", KEYS[3])
if leases ~= redis.call("HLEN", KEYS[4]) then damaged(KEYS[3], "and the owners differ in number") end
-- Most runs have no lease; then the clock is not read.
local live = leases > 0 and redis.call("ZCOUNT", KEYS[3], "(" .. now(), "+inf") or 0
return {diverged and 1 or 0, head.version, head.snapshot, leases, live, diverged and {} or events}
