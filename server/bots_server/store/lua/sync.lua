--[[
  Reads what a server has not seen of a run's history (guarantee 2). Changes nothing.

  KEYS     run (hash), events (stream), leases (zset)
  ARGV[1]  version of the last event that the server folded, 0: none
  ARGV[2]  nonce of that event, "": none
  ARGV[3]  number of events to stop at
  ARGV[4]  bytes of events to stop at

  Returns {} if the run is deleted, else {diverged 0 | 1, version, newest snapshot's version, tasks under a live lease,
  {nonce, time, event, nonce, ...} of the versions after the known one}; or the error of a replica, which may be behind
  its primary. Safe to repeat.

  One history: if the known event is not in Redis or has another nonce, or the event after it is missing, the server has
  diverged, whatever was appended meanwhile. The known event is compared here and does not travel.
]]
--- @include now
-- Deletes nothing, but a replica refuses it. So does a full disk, which does not matter here.
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
-- A page: at most ARGV[3] events or ARGV[4] bytes. Eight at a time, because one event may be a megabyte.
while not diverged and last < version and last - known < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local entries = redis.call("XRANGE", KEYS[2], last + 1 .. "-0", "+", "COUNT", 8)
  diverged = #entries == 0
  for _, entry in ipairs(entries) do
    last = last + 1
    diverged = diverged or entry[1] ~= last .. "-0"
    for field = 2, 6, 2 do events[#events + 1] = entry[2][field] end
    bytes = bytes + #entry[2][6]
  end
end
-- Most runs have no lease; then the clock is not read.
local leases = redis.call("EXISTS", KEYS[3]) == 1 and redis.call("ZCOUNT", KEYS[3], "(" .. now(), "+inf") or 0
return {diverged and 1 or 0, version, tonumber(run[3]), leases, diverged and {} or events}
