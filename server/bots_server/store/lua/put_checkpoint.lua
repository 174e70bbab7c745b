--[[
  Keeps a state under the name of a checkpoint.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name                                     ARGV[2]  uid of the state, 32 characters
  ARGV[3]  uid and checkpoint (Checkpoint), sealed  ARGV[4]  state (Snapshot)
  ARGV[5]  milliseconds to keep it, "0": no limit
  Returns {status, checkpoint}: "created", "exists" (the one that has the name), or {"gone"}.
  Safe to repeat: the checkpoint that exists then is this one.
]]
--- @include now
--- @include head
--- @include count
--- @include checkpoint
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local there = redis.call("HGET", KEYS[2], ARGV[1])
if there then return {"exists", there} end
put_checkpoint(KEYS[2], KEYS[3], ARGV[1], ARGV[3], ARGV[5] == "0" and 0 or now() + ARGV[5])
redis.call("HSET", KEYS[4], ARGV[2], ARGV[4])
count(KEYS[1], "checkpoint_bytes", #ARGV[4])
return {"created", redis.call("HGET", KEYS[2], ARGV[1])}
