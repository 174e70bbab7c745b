--[[
  Extends the life of a checkpoint.

  KEYS     checkpoints (hash), checkpoint_expiry (zset)
  ARGV[1]  name
  ARGV[2]  uid of its state, which tells it from later checkpoints of the name
  ARGV[3]  milliseconds to keep it from now on, "0": no limit

  Returns the time it expires, the later of the old and the new one; 0: never; -1: it is gone.

  Safe to repeat: a repeat counts from its own time.
]]
--- @include now
if string.sub(redis.call("HGET", KEYS[1], ARGV[1]) or "", 1, 32) ~= ARGV[2] then return -1 end
if ARGV[3] == "0" then redis.call("ZREM", KEYS[2], ARGV[1]) end
local expires = tonumber(redis.call("ZSCORE", KEYS[2], ARGV[1]) or 0)
if expires == 0 then return 0 end
expires = math.max(expires, now() + ARGV[3])
redis.call("ZADD", KEYS[2], expires, ARGV[1])
return expires
