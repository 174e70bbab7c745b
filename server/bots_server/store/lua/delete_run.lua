--[[
  Deletes a run with its history, snapshots, checkpoints and leases.

  KEYS[1]   runs (hash)
  KEYS[2]   run (hash): its key has the uid, so a run that was created again under the name has another key
  KEYS[3..] the other keys of the run
  ARGV[1]   name of the run

  Returns 1, or 0 if the run is already deleted.

  Safe to repeat: the repeat finds the run gone and changes nothing.
]]
if redis.call("EXISTS", KEYS[2]) == 0 then return 0 end
redis.call("HDEL", KEYS[1], ARGV[1])
-- Some dozen keys; UNLINK frees the memory in a thread.
for i = 2, #KEYS do
  redis.call("UNLINK", KEYS[i])
end
return 1
