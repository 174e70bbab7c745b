--[[
  Deletes a dataset with all its runs, in one transition.

  KEYS[1]       dataset (hash)
  KEYS[2]       runs (hash)
  KEYS[3..2+n]  the n runs that the caller knows of (hashes)
  KEYS[3+n..]   all other keys of the dataset and of these runs
  ARGV[1]       uid of the dataset
  ARGV[2]       n; 0 if runs are not to be deleted

  Returns {status, runs}: "deleted", "gone" (no dataset of this uid), "changed" (it has other runs than the n: read
  again).

  Safe to repeat: the repeat finds the dataset gone and changes nothing.
]]
if redis.call("HGET", KEYS[1], "uid") ~= ARGV[1] then return {"gone", 0} end
local known, runs = tonumber(ARGV[2]), redis.call("HLEN", KEYS[2])
local alive = 0
-- Once for each run, and below once for each key, all of which the caller has read.
for i = 3, 2 + known do
  alive = alive + redis.call("EXISTS", KEYS[i])
end
if alive ~= runs or known ~= runs then return {"changed", runs} end
-- UNLINK frees the memory in a thread.
for i = 1, #KEYS do
  redis.call("UNLINK", KEYS[i])
end
return {"deleted", runs}
