--[[
  Counts the runs of a dataset. Changes nothing.

  KEYS     dataset (hash), runs (hash)

  Returns the number, or the error that it is not the number of runs created and not deleted. Safe to repeat.
]]
--- @include head
local runs, created = redis.call("HLEN", KEYS[2]), redis.call("HGET", KEYS[1], "runs") or "0"
if created ~= tostring(runs) then damaged(KEYS[1], "counts " .. created .. " runs, and there are " .. runs) end
return runs
