--[[
  Deletes the checkpoints that have expired.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)

  Returns how many; below 100 none is left.

  Safe to repeat: a repeat deletes those that are left.
]]
--- @include now
--- @include count
-- A hundred states may be some hundred megabytes, enough for one script; the caller repeats it.
local over = redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", now(), "LIMIT", 0, 100)
for _, name in ipairs(over) do
  local state = string.sub(redis.call("HGET", KEYS[2], name) or "", 1, 32)
  count(KEYS[1], "checkpoint_bytes", -redis.call("HSTRLEN", KEYS[4], state))
  redis.call("HDEL", KEYS[4], state)
  redis.call("HDEL", KEYS[2], name)
  redis.call("ZREM", KEYS[3], name)
end
return #over
