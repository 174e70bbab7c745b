-- Returns the selection that has or had a task, and when its lease ends; nil if there is none.
local function owner(owners, task)
  local stored = redis.call("HGET", owners, task)
  if not stored then return nil end
  local expires, selection = string.match(stored, "^(%d+) (.*)$")
  return selection or "", tonumber(expires or 0)
end

-- Returns when the lease of a task ends, 0: there is none, and its selection. Both records of it must agree.
local function lease_end(leases, owners, task)
  local score, selection, expires = tonumber(redis.call("ZSCORE", leases, task) or 0), owner(owners, task)
  if score ~= (expires or 0) then damaged(leases, "and the owners differ at task " .. task) end
  return score, selection
end
