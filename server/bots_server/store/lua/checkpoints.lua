--[[
  Reads one checkpoint of a run, or all. Changes nothing.

  KEYS     run (hash), checkpoints (hash), checkpoint_expiry (zset)
  ARGV[1]  name, or "": all

  Returns {status, checkpoints, members of checkpoint_expiry, each followed by its score}: "found", or {"gone"}. Where
  there is no such checkpoint there are none.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local checkpoints = ARGV[1] == "" and redis.call("HVALS", KEYS[2]) or {redis.call("HGET", KEYS[2], ARGV[1]) or nil}
return {"found", checkpoints, redis.call("ZRANGE", KEYS[3], 0, -1, "WITHSCORES")}
