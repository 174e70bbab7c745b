-- Adds to a counter of a hash, and returns its new value. A counter that is no number begins anew: nothing but quotas and
-- what is kept of the past depends on it.
local function count(key, field, by)
  local value = (tonumber(redis.call("HGET", key, field)) or 0) + by
  redis.call("HSET", key, field, value)
  return value
end
