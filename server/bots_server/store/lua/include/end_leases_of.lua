-- Ends the leases of the selections whose records begin so, and returns how many were live at the time `at`.
local function end_leases_of(leases, owners, selections, begin, at)
  local live = 0
  -- At most the selections that have a lease, once for each restart of a job.
  local held = redis.call("HGETALL", selections)
  for i = 1, #held, 2 do
    if string.sub(held[i + 1], 1, #begin) == begin then
      live = live + end_leases(leases, owners, selections, held[i], nil, at)
    end
  end
  return live
end
