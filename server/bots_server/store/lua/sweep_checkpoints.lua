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
local at, swept = now(), 0
-- A hundred states may be some hundred megabytes, enough for one script; the caller repeats it.
for _, name in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", at, "LIMIT", 0, 100)) do
  local stored = redis.call("HGET", KEYS[2], name) or ""
  local expires = expiry(name, stored)
  if expires and expires > 0 and expires <= at then
    local state = string.sub(stored, 1, 32)
    count(KEYS[1], "checkpoint_bytes", -redis.call("HSTRLEN", KEYS[4], state))
    redis.call("HDEL", KEYS[4], state)
    redis.call("HDEL", KEYS[2], name)
    redis.call("ZREM", KEYS[3], name)
    swept = swept + 1
  end
end
return swept
