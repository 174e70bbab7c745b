--[[
  Deletes a checkpoint and its state.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name
  ARGV[2]  uid of its state: of the name's checkpoints through time, the one that is meant

  Returns 1, 0 where it is deleted already, -1 where the run is.

  A repeat finds the state gone and changes nothing.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return -1 end
if redis.call("HDEL", KEYS[4], ARGV[2]) == 0 then return 0 end
redis.call("HDEL", KEYS[2], ARGV[1])
redis.call("ZREM", KEYS[3], ARGV[2] .. ARGV[1])
return 1
