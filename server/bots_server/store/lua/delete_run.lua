--[[
  Deletes a run with its history, snapshots, checkpoints and leases, also if some of it is damaged.

  KEYS      dataset (hash), runs (hash), and those of the run: one that is created again under the name has others
  ARGV[1]   name of the run     ARGV[2]   uid of the run
  Returns 1, or 0 if the run is already deleted.
  Safe to repeat: the repeat finds the run gone and changes nothing.
]]
local listed = string.find(redis.call("HGET", KEYS[2], ARGV[1]) or "", ARGV[2], 1, true)
if not listed and redis.call("EXISTS", KEYS[3]) == 0 then return 0 end
if listed then redis.call("HDEL", KEYS[2], ARGV[1]) end
-- Some dozen keys; UNLINK frees the memory in a thread.
for i = 3, #KEYS do redis.call("UNLINK", KEYS[i]) end
if redis.call("EXISTS", KEYS[1]) == 1 then redis.call("HSET", KEYS[1], "runs", redis.call("HLEN", KEYS[2])) end
return 1
