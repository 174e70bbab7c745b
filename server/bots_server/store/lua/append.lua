--[[
  Adds an event to a run's history, and ends the leases that its selection has on the tasks reported (guarantee 1).

  KEYS      run (hash), events (stream), requests (hash), arrivals (list), leases (zset), owners (hash),
            selections (hash), jobs (hash), states (hash), restores (zset)
  ARGV[1]   request id, 16 bytes                       ARGV[2]   digest of the content, 8 bytes
  ARGV[3]   milliseconds since the id was first sent   ARGV[4]   version that the run must have, or ""
  ARGV[5]   number of request ids to remember          ARGV[6]   nonce
  ARGV[7]   event (Event)                              ARGV[8]   uid of the state that the event names, or ""
  ARGV[9]   that state (Snapshot)                      ARGV[10]  job and incarnation that begin, or ""
  ARGV[11]  selection that the event reports, or ""    ARGV[12]  tasks reported, decimals between blanks
  ARGV[13]  and on: fields of the run and their values: hyperparameters for listings

  Returns {status, version, newest snapshot's version, leases released, bytes written since it}: "appended", "repeated" (the version is that of
  the first time), "reused" (the id was used for other content), "old" (the id may be a forgotten one), "mismatch", or
  {"gone"}.

  Safe to repeat by the request id: it is checked before anything is written. An unknown id is old unless it was first
  sent after the arrival of the newest forgotten id.
]]
--- @include now
--- @include count
--- @include end_leases
--- @include begin_incarnation
local run = redis.call("HMGET", KEYS[1], "version", "snapshot", "forgotten", "written_at_snapshot")
if not run[1] then return {"gone"} end
local at, snapshot = now(), tonumber(run[2])
local seen = redis.call("HGET", KEYS[3], ARGV[1])
if seen then
  local status = string.sub(seen, 1, 8) == ARGV[2] and "repeated" or "reused"
  return {status, (struct.unpack(">I6", seen, 9)), snapshot, 0, 0}
end
if run[3] and at - ARGV[3] <= tonumber(run[3]) then return {"old", tonumber(run[1]), snapshot, 0, 0} end
if ARGV[4] ~= "" and ARGV[4] ~= run[1] then return {"mismatch", tonumber(run[1]), snapshot, 0, 0} end

local version = tonumber(run[1]) + 1
-- First, because only a command that grows Redis is refused when memory is short, and then nothing is changed.
local written = count(KEYS[1], "written", #ARGV[7] + #ARGV[9])
redis.call("XADD", KEYS[2], version .. "-0", "n", ARGV[6], "t", at, "e", ARGV[7], "b", written)
redis.call("HSET", KEYS[1], "version", version, "nonce", ARGV[6], unpack(ARGV, 13))
redis.call("HSET", KEYS[3], ARGV[1], ARGV[2] .. struct.pack(">I6I6", version, at))
redis.call("LPUSH", KEYS[4], ARGV[1])
-- One at a time is enough: each append adds one.
if redis.call("LLEN", KEYS[4]) > tonumber(ARGV[5]) then
  local oldest = redis.call("RPOP", KEYS[4])
  redis.call("HSET", KEYS[1], "forgotten", (struct.unpack(">I6", redis.call("HGET", KEYS[3], oldest), 15)))
  redis.call("HDEL", KEYS[3], oldest)
end
if ARGV[8] ~= "" then
  redis.call("HSET", KEYS[9], ARGV[8], ARGV[9])
  redis.call("ZADD", KEYS[10], version, ARGV[8])
end
begin_incarnation(KEYS[8], KEYS[5], KEYS[6], KEYS[7], ARGV[10], at)
local reported = {}
-- At most 100,000, the tasks of a report.
for task in string.gmatch(ARGV[12], "%d+") do reported[task] = true end
local released = end_leases(KEYS[5], KEYS[6], KEYS[7], ARGV[11], reported, at)
return {"appended", version, snapshot, released, written - (tonumber(run[4]) or 0)}
