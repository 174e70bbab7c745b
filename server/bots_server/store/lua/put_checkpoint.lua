--[[
  Keeps a state under the name of a checkpoint.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name                    ARGV[2]  checkpoint (Checkpoint)
  ARGV[3]  uid of the state        ARGV[4]  state (Snapshot)
  ARGV[5]  milliseconds to keep it, "0": for ever

  Returns {status, checkpoint, time it expires or 0}: "created", "exists" (with the checkpoint that has the name), or
  {"gone"}.

  Safe to repeat: the checkpoint that is there then is this one.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local there = redis.call("HGET", KEYS[2], ARGV[1])
if there then return {"exists", there, 0} end
redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
redis.call("HSET", KEYS[4], ARGV[3], ARGV[4])
if ARGV[5] == "0" then return {"created", ARGV[2], 0} end
local time = redis.call("TIME")
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[5]
redis.call("ZADD", KEYS[3], expires, ARGV[3] .. ARGV[1])
return {"created", ARGV[2], expires}
