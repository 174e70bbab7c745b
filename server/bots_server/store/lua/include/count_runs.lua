-- Returns the number of a dataset's runs. Ends the script if it is not that of the runs created and not deleted.
local function count_runs(dataset, runs)
  local there, created = redis.call("HLEN", runs), redis.call("HGET", dataset, "runs") or "0"
  if created ~= tostring(there) then damaged(dataset, "counts " .. created .. " runs, and there are " .. there) end
  return there
end
