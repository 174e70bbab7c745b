--[[
  Deletes a checkpoint and its state, also if they are damaged.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset), states (hash)
  ARGV[1]  name     ARGV[2]  uid of its state as it is stored, which tells it from later checkpoints of the name
  Returns 1, 0 if it is already deleted, -1 if the run is deleted.
  Safe to repeat: the repeat finds the checkpoint gone and changes nothing.
]]
--- @include count
--- @include drop_checkpoint
if redis.call("EXISTS", KEYS[1]) == 0 then return -1 end
local stored = redis.call("HGET", KEYS[2], ARGV[1])
if not stored or string.sub(stored, 1, 32) ~= ARGV[2] then return 0 end
drop_checkpoint(KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[1], ARGV[2])
return 1
