--[[
  Deletes a dataset with all its runs, in one transition.

  KEYS      dataset (hash), runs (hash), and all other keys of the dataset and of its runs
  ARGV[1]   uid of the dataset
  ARGV[2..] name and uid of each run that the caller knows of, in turn; none if runs are not to be deleted
  Returns {status, runs}: "deleted", "gone" (no dataset of this uid), "changed" (it has other runs: read again); or the
  error that it has not the runs that were created.
  Safe to repeat: the repeat finds the dataset gone and changes nothing.
]]
--- @include head
--- @include count_runs
if redis.call("HGET", KEYS[1], "uid") ~= ARGV[1] then return {"gone", 0} end
local runs, known = count_runs(KEYS[1], KEYS[2]), 0
-- Once for each run, and below once for each key, all of which the caller has read.
for i = 2, #ARGV, 2 do
  local record = redis.call("HGET", KEYS[2], ARGV[i]) or ""
  known = known + (string.find(record, ARGV[i + 1], 1, true) and 1 or 0)
end
if known ~= runs or 2 * known ~= #ARGV - 1 then return {"changed", runs} end
-- UNLINK frees the memory in a thread.
for i = 1, #KEYS do redis.call("UNLINK", KEYS[i]) end
return {"deleted", runs}
