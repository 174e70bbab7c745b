--[[
  Reads the leases of selections. Changes nothing.

  KEYS     run (hash), leases (zset), selections (hash)
  ARGV     selection ids, at most 1,000
  Returns {"found", {job, number of tasks, milliseconds left, ...}}, with 0 tasks for a selection without a live lease,
  or {"gone"} if the run is deleted. Safe to repeat.
]]
--- @include now
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local found, at = {}, now()
for _, selection in ipairs(ARGV) do
  local record = redis.call("HGET", KEYS[3], selection) or "\0-"
  local head = 2 + string.byte(record)
  local tasks = string.sub(record, head + 1)
  -- The leases of a selection end together: the first task tells when.
  local left = (redis.call("ZSCORE", KEYS[2], string.match(tasks, "%d+") or "") or at) - at
  local count = left > 0 and select(2, string.gsub(tasks, "%d+", "")) or 0
  for _, word in ipairs({string.sub(record, 2, head - 1), count, left}) do found[#found + 1] = word end
end
return {"found", found}
