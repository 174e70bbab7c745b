--[[
  Lets a checkpoint live longer.

  KEYS     checkpoint_expiry (zset), states (hash)
  ARGV[1]  name
  ARGV[2]  uid of its state: of the name's checkpoints through time, the one that is meant
  ARGV[3]  milliseconds to keep it from now on, "0": for ever

  Returns the time it expires, the later one of what was said before and now; 0: never; -1: it is gone.

  A repeat counts from its own time.
]]
local member = ARGV[2] .. ARGV[1]
if redis.call("HEXISTS", KEYS[2], ARGV[2]) == 0 then return -1 end
if ARGV[3] == "0" then redis.call("ZREM", KEYS[1], member) end
local expires = tonumber(redis.call("ZSCORE", KEYS[1], member) or 0)
if expires == 0 then return 0 end
local time = redis.call("TIME")
expires = math.max(expires, time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
redis.call("ZADD", KEYS[1], expires, member)
return expires
