-- Ends the leases of a job's earlier incarnations if this one is new, and returns how many of these were live. `begun`
-- is 8 bytes of the job's digest and 8 of the incarnation's, or "" if either is not given. The newest 16 incarnations of
-- a job are remembered, so that a late call of an earlier one ends nothing.
local function begin_incarnation(jobs, leases, owners, selections, begun, at)
  if begun == "" then return 0 end
  local job, incarnation, live = string.sub(begun, 1, 8), string.sub(begun, 9), 0
  local stored = redis.call("HGET", jobs, job) or checksum(job, "")
  local known = string.sub(stored, 1, -9)
  if string.sub(stored, -8) ~= checksum(job, known) then damaged(jobs, "has a wrong checksum at a job") end
  for i = 1, #known, 8 do
    if string.sub(known, i, i + 7) == incarnation then return 0 end
  end
  local newest = string.sub(incarnation .. known, 1, 128)
  redis.call("HSET", jobs, job, newest .. checksum(job, newest))
  -- At most the selections that have a lease, once for each restart of a job.
  local held = known ~= "" and redis.call("HGETALL", selections) or {}
  for i = 1, #held, 2 do
    if string.sub(held[i + 1], 1, 8) == job then
      live = live + end_leases(leases, owners, selections, held[i], nil, at)
    end
  end
  return live
end
