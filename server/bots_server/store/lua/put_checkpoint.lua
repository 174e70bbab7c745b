--[[
  Keeps a state under the name of a checkpoint.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name                    ARGV[2]  checkpoint (Checkpoint)
  ARGV[3]  uid of the state        ARGV[4]  state (Snapshot)
  ARGV[5]  time it expires, "0": never

  Returns {status, checkpoint}: "created", "exists" (with the checkpoint that has the name), or {"gone"}.

  Safe to repeat: the checkpoint that is there then is this one.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local there = redis.call("HGET", KEYS[2], ARGV[1])
if there then return {"exists", there} end
redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
redis.call("HSET", KEYS[4], ARGV[3], ARGV[4])
if ARGV[5] ~= "0" then redis.call("ZADD", KEYS[3], ARGV[5], ARGV[3] .. ARGV[1]) end
return {"created", ARGV[2]}
