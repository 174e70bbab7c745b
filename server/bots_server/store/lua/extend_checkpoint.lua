--[[
  Extends the life of a checkpoint.

  KEYS     checkpoints (hash), checkpoint_expiry (zset)
  ARGV[1]  name     ARGV[2]  uid of its state, which tells it from later checkpoints of the name
  ARGV[3]  milliseconds to keep it from now on, "0": no limit
  Returns the time it expires, the later of the old and the new one; 0: never; -1: it is gone or damaged.
  Safe to repeat: a repeat counts from its own time.
]]
--- @include now
--- @include head
--- @include checkpoint
local stored = redis.call("HGET", KEYS[1], ARGV[1]) or ""
local expires = expiry(ARGV[1], stored)
if string.sub(stored, 1, 32) ~= ARGV[2] or not expires then return -1 end
expires = (ARGV[3] == "0" or expires == 0) and 0 or math.max(expires, now() + ARGV[3])
put_checkpoint(KEYS[1], KEYS[2], ARGV[1], string.sub(stored, 1, -15), expires)
return expires
