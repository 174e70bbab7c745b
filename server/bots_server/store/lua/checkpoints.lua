--[[
  Reads checkpoints of a run by name. Changes nothing.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash), restores (zset)
  ARGV     names, at most 1,000
  Returns {"found", {checkpoint, ...}} with "" for a checkpoint that does not exist, or {"gone"} if the run is deleted.
  Safe to repeat.
]]
--- @include head
--- @include checkpoint
if redis.call("EXISTS", KEYS[1], KEYS[2]) == 0 then return {"gone"} end
local kept = redis.call("HLEN", KEYS[2])
-- Each state is of one checkpoint or of one restored event.
if redis.call("ZCARD", KEYS[3]) ~= kept or redis.call("HLEN", KEYS[4]) ~= kept + redis.call("ZCARD", KEYS[5]) then
  damaged(KEYS[2], "or the keys beside it lack checkpoints or states")
end
local found = {}
for i, name in ipairs(ARGV) do
  found[i] = redis.call("HGET", KEYS[2], name) or ""
  if found[i] ~= "" then
    local expires, score = expiry(name, found[i]), redis.call("ZSCORE", KEYS[3], name)
    if not expires or tonumber(score) ~= (expires == 0 and math.huge or expires) then
      damaged(KEYS[2], "or its expiry has a wrong checksum at " .. name)
    end
  end
end
return {"found", found}
