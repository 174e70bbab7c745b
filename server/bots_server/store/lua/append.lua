--[[
  Adds an event to a run's history, and ends the leases that go with it (guarantee 1).

  KEYS      run (hash), events (stream), requests (hash), arrivals (list), leases (zset), owners (hash),
            selections (hash), states (hash), restores (zset)
  ARGV[1]   request id, 16 bytes                       ARGV[2]   digest of the content, 8 bytes
  ARGV[3]   milliseconds since the id was first sent   ARGV[4]   version that the run must have, or ""
  ARGV[5]   number of request ids to remember          ARGV[6]   nonce
  ARGV[7]   event (Event)                              ARGV[8]   uid of the state that the event names, or ""
  ARGV[9]   that state (Snapshot)
  ARGV[10]  selection whose leases on the tasks reported end, "*": all leases of the run end, "": none
  ARGV[11]  tasks reported, decimals between blanks
  ARGV[12]  and on: fields of the run and their values: hyperparameters for listings

  Returns {status, version, newest snapshot's version, leases released, bytes written since that snapshot}: "appended",
  "repeated" (the version is that of the first time), "reused" (the id was used for other content), "old" (the id may be
  a forgotten one), "lost" (ids are damaged or missing: all are forgotten now), "mismatch", or {"gone"}.

  Safe to repeat by the request id: it is checked before anything is written. An unknown id is old unless it was first
  sent after the arrival of the newest forgotten id. While the clock is behind that, because it was set back or another
  server has it, an id that is sent for the first time is new. The arrival of the newest forgotten id never goes back.
]]
--- @include now
--- @include head
--- @include count
--- @include owner
--- @include end_leases
--- @include end_all_leases
local at, restoring = now(), ARGV[10] == "*"
local intact, head = pcall(read_head, KEYS[1])
local rebuilt = restoring and not (intact and head)
if rebuilt then
  head, intact = head_of_events(KEYS[2], KEYS[3], at), true
  if head then redis.call("UNLINK", KEYS[1]) end
end
if not intact then error(head) end
if not head then return {"gone"} end
-- Returns digest, version and arrival of a request id; nil: it is not known; "": its entry is damaged.
local function request(id)
  local seen = redis.call("HGET", KEYS[3], id)
  if not seen then return nil end
  if string.sub(seen, 21) ~= checksum(id, string.sub(seen, 1, 20)) then return "" end
  return string.sub(seen, 1, 8), struct.unpack(">I6I6", seen, 9)
end
local digest, first = request(ARGV[1])
if digest and digest ~= "" then return {digest == ARGV[2] and "repeated" or "reused", first, head.snapshot, 0, 0} end

local ids, kept = redis.call("HLEN", KEYS[3]), tonumber(ARGV[5])
local oldest = ids >= kept and redis.call("LINDEX", KEYS[4], -1)
-- A known id that the hash has lost is still in the list. Repeats come soon, or say that they are some.
local within = tonumber(ARGV[3]) > 0 and 0 or 256
local lost = digest or ids ~= head.ids or redis.call("LLEN", KEYS[4]) ~= ids or (oldest and (request(oldest) or "") == "")
if lost or redis.call("LPOS", KEYS[4], ARGV[1], "MAXLEN", within) then
  redis.call("UNLINK", KEYS[3], KEYS[4])
  head.ids, head.forgotten = 0, math.max(head.forgotten, at - 1)
  write_head(KEYS[1], head)
  if not restoring then return {"lost", head.version, head.snapshot, 0, 0} end
  oldest = nil
elseif not rebuilt and head.forgotten > 0 and at - ARGV[3] <= (head.forgotten > at and at - 1 or head.forgotten) then
  return {"old", head.version, head.snapshot, 0, 0}
end
if ARGV[4] ~= "" and tonumber(ARGV[4]) ~= head.version then return {"mismatch", head.version, head.snapshot, 0, 0} end

local version = head.version + 1
-- A restore needs no event before it.
if not restoring then
  require_events(KEYS[2], head)
elseif missing_events(KEYS[2], head) ~= 0 then
  redis.call("UNLINK", KEYS[2])
  head.trimmed = version
end
local id, time = string.format("%.0f-0", version), string.format("%.0f", at)
-- First, because only a command that grows Redis is refused when memory is short, and then nothing is changed.
local written = count(KEYS[1], "written", #ARGV[7] + #ARGV[9])
redis.call("XADD", KEYS[2], id, "n", ARGV[6], "t", time, "e", ARGV[7], "c", checksum(id, ARGV[6], time), "b", written)
local entry = ARGV[2] .. struct.pack(">I6I6", version, at)
redis.call("HSET", KEYS[3], ARGV[1], entry .. checksum(ARGV[1], entry))
redis.call("LPUSH", KEYS[4], ARGV[1])
-- One at a time is enough: each append adds one.
if oldest then
  local _, _, arrival = request(oldest)
  redis.call("RPOP", KEYS[4])
  redis.call("HDEL", KEYS[3], oldest)
  head.forgotten = math.max(head.forgotten, arrival)
else
  head.ids = head.ids + 1
end
head.version, head.nonce = version, ARGV[6]
write_head(KEYS[1], head)
if #ARGV > 11 then redis.call("HSET", KEYS[1], unpack(ARGV, 12)) end
if ARGV[8] ~= "" then
  redis.call("HSET", KEYS[8], ARGV[8], ARGV[9])
  redis.call("ZADD", KEYS[9], version, ARGV[8])
end
local released
if restoring then
  released = end_all_leases(KEYS[5], KEYS[6], KEYS[7], at)
else
  local reported = {}
  -- At most 100,000, the tasks of a report.
  for task in string.gmatch(ARGV[11], "%d+") do reported[task] = true end
  released = end_leases(KEYS[5], KEYS[6], KEYS[7], ARGV[10], reported, at)
end
local unsaved = written - (tonumber(redis.call("HGET", KEYS[1], "written_at_snapshot")) or 0)
return {"appended", version, head.snapshot, released, unsaved}
