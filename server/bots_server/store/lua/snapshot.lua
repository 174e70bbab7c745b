--[[
  Reads the newest snapshot of a run up to a version. Changes nothing.

  KEYS     run (hash), snapshots (hash)
  ARGV[1]  highest version, or "inf"
  Returns {status, its version or 0, snapshot or "", oldest version that can be rebuilt, version}: "found", "start" (no
  snapshot: start at the prior), "trimmed", or {"gone"}. Safe to repeat.
]]
--- @include head
--- @include snapshots
local head = read_head(KEYS[1])
if not head then return {"gone"} end
local at_most = ARGV[1] == "inf" and head.version or tonumber(ARGV[1])
if at_most < head.trimmed then return {"trimmed", 0, "", head.trimmed, head.version} end
local found = snapshot_versions(KEYS[2], at_most)
local at = found[#found]
if not at or at < head.trimmed then return {"start", 0, "", head.trimmed, head.version} end
return {"found", at, redis.call("HGET", KEYS[2], string.format("%.0f", at)), head.trimmed, head.version}
