--[[
  Reads the newest snapshot of a run up to a version. Changes nothing.

  KEYS     run (hash), snapshots (hash), snapshot_versions (zset)
  ARGV[1]  highest version, or "+inf"

  Returns {status, snapshot or "", oldest version that can be rebuilt, version}: "found", "start" (no snapshot: start
  at the prior), "trimmed", or {"gone"}. Safe to repeat.
]]
local run = redis.call("HMGET", KEYS[1], "trimmed", "version")
if not run[1] then return {"gone"} end
local trimmed, version = tonumber(run[1]), tonumber(run[2])
if ARGV[1] ~= "+inf" and tonumber(ARGV[1]) < trimmed then return {"trimmed", "", trimmed, version} end
local at = redis.call("ZREVRANGEBYSCORE", KEYS[3], ARGV[1], "-inf", "LIMIT", 0, 1)[1]
if not at then return {"start", "", trimmed, version} end
return {"found", redis.call("HGET", KEYS[2], at), trimmed, version}
