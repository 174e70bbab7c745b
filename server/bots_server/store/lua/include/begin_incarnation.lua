-- Ends the leases of a job's earlier incarnations if this one is new, and returns how many of these were live.
-- `incarnation` is 8 bytes of its digest; nothing happens if it or the job is "". The newest 16 incarnations of a job are
-- remembered, so that a late call of an earlier one ends nothing.
local function begin_incarnation(jobs, leases, owners, selections, job, incarnation, at)
  if job == "" or incarnation == "" then return 0 end
  local stored = redis.call("HGET", jobs, job) or checksum(job, "")
  local known = string.sub(stored, 1, -9)
  if string.sub(stored, -8) ~= checksum(job, known) then damaged(jobs, "has a wrong checksum at a job") end
  for i = 1, #known, 8 do
    if string.sub(known, i, i + 7) == incarnation then return 0 end
  end
  local newest = string.sub(incarnation .. known, 1, 128)
  redis.call("HSET", jobs, job, newest .. checksum(job, newest))
  return known ~= "" and end_leases_of(leases, owners, selections, string.char(#job) .. job .. "i", at) or 0
end
