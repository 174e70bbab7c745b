--[[
  Reads checkpoints of a run by name. Changes nothing.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset)
  ARGV     names, at most 1,000

  Returns {"found", {checkpoint, time it expires or "0", ...}} with "" for a checkpoint that does not exist, or {"gone"}
  if the run is deleted. Safe to repeat.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local found = {}
for i, name in ipairs(ARGV) do
  found[2 * i - 1] = redis.call("HGET", KEYS[2], name) or ""
  found[2 * i] = redis.call("ZSCORE", KEYS[3], name) or "0"
end
return {"found", found}
