--[[
  Deletes the checkpoints that have expired.

  KEYS     checkpoints (hash), checkpoint_expiry (zset), states (hash)

  Returns how many; below 100 none is left.

  Safe to repeat: a repeat deletes those that are left.
]]
--- @include now
-- A hundred states may be some hundred megabytes, enough for one script; the caller repeats it.
local over = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now(), "LIMIT", 0, 100)
for _, name in ipairs(over) do
  redis.call("HDEL", KEYS[3], string.sub(redis.call("HGET", KEYS[1], name) or "", 1, 32))
  redis.call("HDEL", KEYS[1], name)
  redis.call("ZREM", KEYS[2], name)
end
return #over
