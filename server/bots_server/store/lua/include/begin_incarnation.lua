-- Ends the leases of a job's earlier incarnations if this one is new, and returns how many of these were live.
-- `incarnation` is 8 bytes of its digest; nothing happens if it or the job is "". The newest 16 incarnations of a job are
-- remembered, so that a late call of an earlier one ends nothing.
local function begin_incarnation(jobs, leases, owners, selections, job, incarnation, at)
  if job == "" or incarnation == "" then return 0 end
  local known = redis.call("HGET", jobs, job) or ""
  for i = 1, #known, 8 do
    if string.sub(known, i, i + 7) == incarnation then return 0 end
  end
  redis.call("HSET", jobs, job, string.sub(incarnation .. known, 1, 128))
  return known ~= "" and end_leases_of(leases, owners, selections, string.char(#job) .. job .. "i", at) or 0
end
