--[[
  Keeps a state under the name of a checkpoint.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name                                     ARGV[2]  uid of the state, 32 characters
  ARGV[3]  checkpoint (Checkpoint)                  ARGV[4]  state (Snapshot)
  ARGV[5]  milliseconds to keep it, "0": no limit

  Returns {status, uid of the state and checkpoint, time it expires or 0}: "created", "exists" (the checkpoint that has
  the name), or {"gone"}.

  Safe to repeat: the checkpoint that exists then is this one.
]]
--- @include now
--- @include count
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local there = redis.call("HGET", KEYS[2], ARGV[1])
if there then return {"exists", there, 0} end
redis.call("HSET", KEYS[2], ARGV[1], ARGV[2] .. ARGV[3])
redis.call("HSET", KEYS[4], ARGV[2], ARGV[4])
count(KEYS[1], "checkpoint_bytes", #ARGV[4])
if ARGV[5] == "0" then return {"created", ARGV[2] .. ARGV[3], 0} end
local expires = now() + ARGV[5]
redis.call("ZADD", KEYS[3], expires, ARGV[1])
return {"created", ARGV[2] .. ARGV[3], expires}
