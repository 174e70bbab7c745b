--[[
  Ends the leases of one selection, and of no other.

  KEYS     run (hash), leases (zset), owners (hash), selections (hash)
  ARGV[1]  selection id

  Returns how many of its leases were live, -1 where the run is deleted.

  A repeat finds the selection gone: it returns 0 and changes nothing.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return -1 end
local time = redis.call("TIME")
local now, live = time[1] * 1000 + math.floor(time[2] / 1000), 0
-- As many as the selection has tasks: 10,000 at most.
for task in string.gmatch(redis.call("HGET", KEYS[4], ARGV[1]) or "", "%d+") do
  if redis.call("HGET", KEYS[3], task) == ARGV[1] then
    if tonumber(redis.call("ZSCORE", KEYS[2], task)) > now then live = live + 1 end
    redis.call("HDEL", KEYS[3], task)
    redis.call("ZREM", KEYS[2], task)
  end
end
redis.call("HDEL", KEYS[4], ARGV[1])
return live
