--[[
  Counts the runs of a dataset. Changes nothing.

  KEYS     dataset (hash), runs (hash)
  Returns the number, or the error that it is not the number of runs created and not deleted. Safe to repeat.
]]
--- @include head
--- @include count_runs
return count_runs(KEYS[1], KEYS[2])
