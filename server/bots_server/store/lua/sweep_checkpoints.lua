--[[
  Deletes the checkpoints whose time is over.

  KEYS     checkpoints (hash), checkpoint_expiry (zset), states (hash)

  Returns how many; below 100 there is none left.

  A repeat deletes what is left.
]]
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A hundred states may be some hundred megabytes: enough for one go; the caller comes again.
local over = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now, "LIMIT", 0, 100)
for _, member in ipairs(over) do
  redis.call("HDEL", KEYS[3], string.sub(member, 1, 32))
  redis.call("HDEL", KEYS[1], string.sub(member, 33))
  redis.call("ZREM", KEYS[2], member)
end
return #over
