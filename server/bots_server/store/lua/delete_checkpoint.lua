--[[
  Deletes a checkpoint and its state.

  KEYS     checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name
  ARGV[2]  uid of its state: of the name's checkpoints through time, the one that is meant

  Returns 1, or 0 where it is deleted already.

  A repeat finds the state gone and changes nothing.
]]
if redis.call("HDEL", KEYS[3], ARGV[2]) == 0 then return 0 end
redis.call("HDEL", KEYS[1], ARGV[1])
redis.call("ZREM", KEYS[2], ARGV[2] .. ARGV[1])
return 1
