--[[
  Tells a server what it has not seen of a run's history. Changes nothing.

  A selection sees every report acknowledged before it was asked (on the same Redis primary): it syncs first.

  KEYS[1]  run (hash)
  KEYS[2]  events (stream)
  KEYS[3]  leases (zset)
  ARGV[1]  version of the last event that the server folded, 0: none
  ARGV[2]  nonce of that event, "": none
  ARGV[3]  events to stop at
  ARGV[4]  bytes of events to stop at

  Returns {} where the run is deleted, else {diverged 0 | 1, version, newest snapshot's version, tasks under a live
  lease, {nonce, event, nonce, event, ...} of the versions after the known one}; or the error of a replica, which may be
  behind its primary.

  One history: where the known event is not in Redis (any more) or has another nonce, or the event after it is
  missing, it says diverged, whatever was appended meanwhile. The known event's content is compared here and never
  travels.
]]
-- Deletes nothing, but a replica refuses it. A full disk does too, and is no matter here.
local refused = redis.pcall("HDEL", KEYS[1], "")
if type(refused) == "table" and string.find(refused.err, "READONLY", 1, true) then return refused end
local run = redis.call("HMGET", KEYS[1], "version", "nonce", "snapshot")
if not run[1] then return {} end
local known, version, nonce = tonumber(ARGV[1]), tonumber(run[1]), ""
if known == version then
  nonce = run[2]
elseif known > 0 then
  local entry = redis.call("XRANGE", KEYS[2], ARGV[1] .. "-0", ARGV[1] .. "-0")[1]
  nonce = entry and entry[2][2]
end
local diverged = nonce ~= ARGV[2] or known > version
local events, bytes, last = {}, 0, known
-- A page: ends with ARGV[3] events, or with ARGV[4] bytes. Eight at a time, because one event may be a megabyte.
while not diverged and last < version and last - known < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local entries = redis.call("XRANGE", KEYS[2], last + 1 .. "-0", "+", "COUNT", 8)
  diverged = #entries == 0
  for _, entry in ipairs(entries) do
    last = last + 1
    diverged = diverged or entry[1] ~= last .. "-0"
    events[#events + 1], events[#events + 2] = entry[2][2], entry[2][4]
    bytes = bytes + #entry[2][4]
  end
end
local leases = 0
if redis.call("EXISTS", KEYS[3]) == 1 then
  local time = redis.call("TIME")
  leases = redis.call("ZCOUNT", KEYS[3], "(" .. time[1] * 1000 + math.floor(time[2] / 1000), "+inf")
end
return {diverged and 1 or 0, version, tonumber(run[3]), leases, diverged and {} or events}
