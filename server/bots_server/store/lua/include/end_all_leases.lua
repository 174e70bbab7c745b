-- Ends all leases of a run, and returns how many were live at the time `at`.
local function end_all_leases(leases, owners, selections, at)
  local live = redis.call("ZCOUNT", leases, "(" .. at, "+inf")
  redis.call("UNLINK", leases, owners, selections)
  return live
end
