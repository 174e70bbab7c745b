--[[
  Adds an event to a run's history and releases the selection that it completes.

  An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers
  agree on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to
  know.

  KEYS     run (hash), events (stream), requests (zset), leases (zset), owners (hash), selections (hash),
           states (hash), restores (zset)
  ARGV[1]  request id (16 bytes of a UUIDv7)    ARGV[2]  digest of the content (8 bytes)
  ARGV[3]  nonce                                ARGV[4]  event (Event)
  ARGV[5]  selection that it completes, or ""   ARGV[6]  version that the run must have, or ""
  ARGV[7]  request ids to remember              ARGV[8]  uid of the state that the event names, or ""
  ARGV[9]  that state (Snapshot)                ARGV[10] milliseconds that the id may be ahead

  Returns {status, version, newest snapshot's version, leases released}: "appended", "repeated" (the version is that
  of the first time), "reused" (the id was used for other content), "old" (the id may be one that is forgotten),
  "ahead" (the id's time is yet to come), "mismatch", or {"gone"}. Live leases are counted, where it is "appended".

  Safe to repeat by the request id: all of it is checked before anything is written. The ids sort by time; where ids
  were forgotten, they were older than all that are kept; one from a clock that is far ahead would stay and make all
  others old. Redis compares them, because Lua's < goes by the server's locale.
]]
local run = redis.call("HMGET", KEYS[1], "version", "snapshot", "forgotten")
if not run[1] then return {"gone"} end
local past = ARGV[1] .. string.rep("\255", 17)
local seen = redis.call("ZRANGEBYLEX", KEYS[3], "[" .. ARGV[1], "(" .. past, "LIMIT", 0, 1)[1]
if seen then
  local status = string.sub(seen, 17, 24) == ARGV[2] and "repeated" or "reused"
  return {status, struct.unpack(">I8", string.sub(seen, 25)), tonumber(run[2])}
end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if struct.unpack(">I6", ARGV[1]) > now + ARGV[10] then return {"ahead", tonumber(run[1]), tonumber(run[2])} end
local older = redis.call("ZLEXCOUNT", KEYS[3], "-", "(" .. ARGV[1])
if run[3] and older == 0 then return {"old", tonumber(run[1]), tonumber(run[2])} end
if ARGV[6] ~= "" and ARGV[6] ~= run[1] then return {"mismatch", tonumber(run[1]), tonumber(run[2])} end

local version = tonumber(run[1]) + 1
-- First, because only a command that grows Redis is refused where memory is short, and then nothing is changed.
redis.call("XADD", KEYS[2], version .. "-0", "n", ARGV[3], "e", ARGV[4])
redis.call("HSET", KEYS[1], "version", version, "nonce", ARGV[3])
redis.call("ZADD", KEYS[3], 0, ARGV[1] .. ARGV[2] .. struct.pack(">I8", version))
-- One at a time is enough: each append adds one.
if redis.call("ZCARD", KEYS[3]) > tonumber(ARGV[7]) then
  redis.call("ZPOPMIN", KEYS[3])
  redis.call("HINCRBY", KEYS[1], "forgotten", 1)
end
if ARGV[8] ~= "" then
  redis.call("HSET", KEYS[7], ARGV[8], ARGV[9])
  redis.call("ZADD", KEYS[8], version, ARGV[8])
end
-- As many as the selection has tasks: 10,000 at most.
local released = 0
for task in string.gmatch(redis.call("HGET", KEYS[6], ARGV[5]) or "", "%d+") do
  if redis.call("HGET", KEYS[5], task) == ARGV[5] then
    if tonumber(redis.call("ZSCORE", KEYS[4], task)) > now then released = released + 1 end
    redis.call("HDEL", KEYS[5], task)
    redis.call("ZREM", KEYS[4], task)
  end
end
redis.call("HDEL", KEYS[6], ARGV[5])
return {"appended", version, tonumber(run[2]), released}
