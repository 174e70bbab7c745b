--[[
  Keeps a snapshot of a run, then trims the history that is not needed any more.

  KEYS     run (hash), events (stream), snapshots (hash), states (hash), restores (zset)
  ARGV[1]  version    ARGV[2]  nonce of its event    ARGV[3]  snapshot (Snapshot)
  ARGV[4]  number of events to keep behind the newest
  ARGV[5]  versions between the snapshots kept along the history
  ARGV[6]  most bytes of the snapshots before this one, and of the events and their states behind it
  Returns 1 if it is kept; 0 if the run is deleted, the event of its version is another one (or trimmed), or there is a
  newer snapshot.
  Safe to repeat: the same version again is stored again and trims the same.

  Trimming goes to `base`, the newest snapshot that is ARGV[4] behind, or a newer one, at most this one, if more bytes
  would be kept: events and snapshots before it are deleted; the event of base itself stays, so that its nonce can be
  compared. So every version from base on can be rebuilt, events that the newest snapshot does not hold are never
  deleted, and between base and the newest the oldest snapshot of each stride is kept.
]]
--- @include head
--- @include snapshots
local head, at, stride = read_head(KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[5])
if not head or at == 0 or at < head.snapshot or nonce_of(KEYS[2], at) ~= ARGV[2] then return 0 end

local function text(version) return string.format("%.0f", version) end

-- Returns the bytes that were written until a version.
local function written_at(version)
  local id = text(version) .. "-0"
  local fields = (redis.call("XRANGE", KEYS[2], id, id)[1] or {0, {}})[2]
  for i = 1, #fields, 2 do
    if fields[i] == "b" then return tonumber(fields[i + 1]) or 0 end
  end
  return 0
end
redis.call("HSET", KEYS[3], ARGV[1], ARGV[3])
local horizon, versions, base = math.min(head.version - ARGV[4], at), snapshot_versions(KEYS[3], at), head.trimmed
for _, version in ipairs(versions) do
  if version <= horizon then base = math.max(base, version) end
end
-- The one before this goes if the one before that, or base, is of the same stride.
local last, earlier = versions[#versions - 1] or base, math.max(versions[#versions - 2] or base, base)
if last > base and math.floor(last / stride) == math.floor(earlier / stride) then
  redis.call("HDEL", KEYS[3], text(last))
  table.remove(versions, #versions - 1)
end
-- From this one back as far as the bytes allow, to base at most, which is no snapshot if it is the start.
local written, bytes, oldest = written_at(at), 0, at
for i = #versions - 1, 0, -1 do
  local version = math.max(versions[i] or base, base)
  local more = redis.call("HSTRLEN", KEYS[3], text(version))
  if oldest == base or bytes + more + written - written_at(version) > tonumber(ARGV[6]) then break end
  bytes, oldest = bytes + more, version
end
base = oldest
for _, version in ipairs(versions) do
  if version < base then redis.call("HDEL", KEYS[3], text(version)) end
end
-- A hundred is the bound for an unusual history; the next call takes the rest.
for _, uid in ipairs(redis.call("ZRANGEBYSCORE", KEYS[5], "-inf", "(" .. base, "LIMIT", 0, 100)) do
  redis.call("HDEL", KEYS[4], uid)
  redis.call("ZREM", KEYS[5], uid)
end
if base > head.trimmed then redis.call("HSET", KEYS[1], "written_before_base", written_at(base - 1)) end
redis.call("XTRIM", KEYS[2], "MINID", text(base) .. "-0")
head.snapshot, head.trimmed = at, base
write_head(KEYS[1], head)
redis.call("HSET", KEYS[1], "written_at_snapshot", written, "snapshot_bytes", bytes + #ARGV[3])
return 1
