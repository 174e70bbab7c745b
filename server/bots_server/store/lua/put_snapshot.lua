--[[
  Keeps a snapshot of a run, then trims the history that is not needed any more.

  KEYS     run (hash), events (stream), snapshots (hash), snapshot_versions (zset), states (hash), restores (zset)
  ARGV[1]  version    ARGV[2]  nonce of its event    ARGV[3]  snapshot (Snapshot)
  ARGV[4]  number of events to keep behind the newest
  ARGV[5]  versions between the snapshots kept along the history
  ARGV[6]  most bytes of the snapshots before this one, and of the events and their states behind it

  Returns 1 if it is kept; 0 if the run is deleted, the event of its version is another one (or trimmed), or there is a
  newer snapshot.

  Trimming goes to `base`, the newest snapshot that is ARGV[4] behind, or a newer one, at most this one, if more bytes
  would be kept: events and snapshots before it are deleted; the
  event of base itself stays, so that its nonce can be compared. So every version from base on can be rebuilt, events
  that the newest snapshot does not hold are never deleted, and between base and the newest the oldest snapshot of each
  stride is kept.

  Safe to repeat: the same version again is accepted and changes nothing.
]]
local run = redis.call("HMGET", KEYS[1], "version", "snapshot", "trimmed")
local at, stride = tonumber(ARGV[1]), tonumber(ARGV[5])
local entry = redis.call("XRANGE", KEYS[2], ARGV[1] .. "-0", ARGV[1] .. "-0")[1]
if not run[1] or not entry or entry[2][2] ~= ARGV[2] or at < tonumber(run[2]) then return 0 end
if at == tonumber(run[2]) then return 1 end

-- Returns the bytes that were written until a version.
local function written_at(version)
  local fields = (redis.call("XRANGE", KEYS[2], version .. "-0", version .. "-0")[1] or {0, {}})[2]
  for i = 1, #fields, 2 do
    if fields[i] == "b" then return tonumber(fields[i + 1]) end
  end
  return 0
end
local function drop(version)
  redis.call("HDEL", KEYS[3], version)
  redis.call("ZREM", KEYS[4], version)
end
redis.call("HSET", KEYS[3], at, ARGV[3])
redis.call("ZADD", KEYS[4], at, at)
local horizon = math.min(tonumber(run[1]) - tonumber(ARGV[4]), at)
local base = tonumber(redis.call("ZREVRANGEBYSCORE", KEYS[4], horizon, 0, "LIMIT", 0, 1)[1] or run[3])
local before = redis.call("ZREVRANGEBYSCORE", KEYS[4], "(" .. at, base, "LIMIT", 0, 2)
local last, earlier = tonumber(before[1] or base), tonumber(before[2] or base)
if last > base and math.floor(last / stride) == math.floor(earlier / stride) then drop(last) end
-- From the newest to the oldest, as far back as they fit: a dozen, or as many as an unusual history has, and base, which
-- is no snapshot if it is the start.
local candidates = redis.call("ZREVRANGEBYSCORE", KEYS[4], "(" .. at, "(" .. base)
if base < at then candidates[#candidates + 1] = base end
local written, bytes, oldest = written_at(at), 0, at
for _, version in ipairs(candidates) do
  local more = redis.call("HSTRLEN", KEYS[3], version)
  if bytes + more + written - written_at(version) > tonumber(ARGV[6]) then break end
  bytes, oldest = bytes + more, tonumber(version)
end
base = oldest
-- Few: base moves one snapshot at a time. A hundred is the bound for an unusual history; the next call takes the rest.
for _, version in ipairs(redis.call("ZRANGEBYSCORE", KEYS[4], "-inf", "(" .. base, "LIMIT", 0, 100)) do
  drop(version)
end
for _, uid in ipairs(redis.call("ZRANGEBYSCORE", KEYS[6], "-inf", "(" .. base, "LIMIT", 0, 100)) do
  redis.call("HDEL", KEYS[5], uid)
  redis.call("ZREM", KEYS[6], uid)
end
if base > tonumber(run[3]) then redis.call("HSET", KEYS[1], "written_before_base", written_at(base - 1)) end
redis.call("XTRIM", KEYS[2], "MINID", base .. "-0")
redis.call("HSET", KEYS[1], "snapshot", at, "trimmed", base, "written_at_snapshot", written, "snapshot_bytes",
  bytes + #ARGV[3])
return 1
