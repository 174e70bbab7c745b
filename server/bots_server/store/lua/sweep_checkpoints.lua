--[[
  Deletes the checkpoints that have expired.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  Returns how many; below 100 none is left. One that is damaged stays, to be named.
  Safe to repeat: a repeat deletes those that are left.
]]
--- @include now
--- @include head
--- @include count
--- @include checkpoint
--- @include drop_checkpoint
local at, swept = now(), 0
-- A hundred states may be some hundred megabytes, enough for one script; the caller repeats it.
for _, name in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", at, "LIMIT", 0, 100)) do
  local stored = redis.call("HGET", KEYS[2], name) or ""
  local expires = expiry(name, stored)
  if expires and expires > 0 and expires <= at then
    drop_checkpoint(KEYS[1], KEYS[2], KEYS[3], KEYS[4], name, string.sub(stored, 1, 32))
    swept = swept + 1
  end
end
return swept
