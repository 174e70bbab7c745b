--[[
  Keeps a snapshot of a run, then trims the history that is not needed any more.

  KEYS     run (hash), events (stream), snapshots (hash), states (hash), restores (zset)
  ARGV[1]  version    ARGV[2]  nonce of its event    ARGV[3]  snapshot (Snapshot)
  ARGV[4]  number of events to keep behind the newest
  ARGV[5]  versions between the snapshots kept along the history

  Returns 1 if it is kept; 0 if the run is deleted, the event of its version is another one (or trimmed), or there is a
  newer snapshot.

  Trimming goes to `base`, the newest snapshot that is ARGV[4] behind: events and snapshots before it are deleted; the
  event of base itself stays, so that its nonce can be compared. So every version from base on can be rebuilt, events
  that the newest snapshot does not hold are never deleted, and between base and the newest the oldest snapshot of each
  stride is kept.

  Safe to repeat: the same version again is stored again and trims the same.
]]
--- @include head
--- @include snapshots
local head, at, stride = read_head(KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[5])
if not head or at == 0 or at < head.snapshot or nonce_of(KEYS[2], at) ~= ARGV[2] then return 0 end

redis.call("HSET", KEYS[3], ARGV[1], ARGV[3])
local horizon, versions, base = math.min(head.version - ARGV[4], at), snapshot_versions(KEYS[3], at), head.trimmed
for _, version in ipairs(versions) do
  if version <= horizon then base = math.max(base, version) end
end
local last, earlier = versions[#versions - 1] or base, versions[#versions - 2] or base
last, earlier = math.max(last, base), math.max(earlier, base)
if last > base and math.floor(last / stride) == math.floor(earlier / stride) then
  redis.call("HDEL", KEYS[3], string.format("%.0f", last))
end
for _, version in ipairs(versions) do
  if version < base then redis.call("HDEL", KEYS[3], string.format("%.0f", version)) end
end
-- A hundred is the bound for an unusual history; the next call takes the rest.
for _, uid in ipairs(redis.call("ZRANGEBYSCORE", KEYS[5], "-inf", "(" .. base, "LIMIT", 0, 100)) do
  redis.call("HDEL", KEYS[4], uid)
  redis.call("ZREM", KEYS[5], uid)
end
redis.call("XTRIM", KEYS[2], "MINID", string.format("%.0f-0", base))
head.snapshot, head.trimmed = at, base
write_head(KEYS[1], head)
return 1
