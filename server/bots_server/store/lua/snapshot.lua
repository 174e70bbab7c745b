--[[
  Reads the newest snapshot of a run, of a given version or below. Changes nothing.

  KEYS[1]  run (hash)
  KEYS[2]  snapshots (hash)
  KEYS[3]  snapshot_versions (zset)
  ARGV[1]  highest version, or "+inf"

  Returns {status, snapshot or "", oldest version that can be rebuilt, version}: "found", "start" (no snapshot: start
  at the prior), "trimmed", or {"gone"}.
]]
local run = redis.call("HMGET", KEYS[1], "trimmed", "version")
if not run[1] then return {"gone"} end
local trimmed, version = tonumber(run[1]), tonumber(run[2])
if ARGV[1] ~= "+inf" and tonumber(ARGV[1]) < trimmed then return {"trimmed", "", trimmed, version} end
local at = redis.call("ZREVRANGEBYSCORE", KEYS[3], ARGV[1], "-inf", "LIMIT", 0, 1)[1]
if not at then return {"start", "", trimmed, version} end
return {"found", redis.call("HGET", KEYS[2], at), trimmed, version}
