-- Deletes the records of leases that are over at the time `at`, and returns of how many. At most as many as one claim can
-- take, so that purging keeps up with leasing; the others that are over count as free.
local function purge_leases(leases, owners, selections, at)
  local over = redis.call("ZRANGEBYSCORE", leases, "-inf", at, "LIMIT", 0, 10000)
  for _, task in ipairs(over) do
    local _, selection = lease_end(leases, owners, task)
    redis.call("HDEL", selections, selection)
    redis.call("HDEL", owners, task)
    redis.call("ZREM", leases, task)
  end
  return #over
end
