--[[
  Makes an uploaded dataset appear under its name, whole or not at all.

  KEYS      dataset (hash), and columns and strata: staged, to expire within an hour
  ARGV[1]   uid     ARGV[2]   record (DatasetRecord)
  Returns {status, record}: "created", "exists" (the record that has the name), "expired" (a staged key is gone).
  Safe to repeat: a dataset of the same uid is the one that this call created.
]]
local there = redis.call("HMGET", KEYS[1], "uid", "record")
if there[1] then return {there[1] == ARGV[1] and "created" or "exists", there[2]} end
-- At most 2 + size / 1024 keys: all chunks but the last have 1,024 tasks or more.
for i = 2, #KEYS do
  if redis.call("EXISTS", KEYS[i]) == 0 then return {"expired", ""} end
end
-- First, because only a command that grows Redis is refused when memory is short, and then nothing is changed.
redis.call("HSET", KEYS[1], "uid", ARGV[1], "record", ARGV[2], "runs", 0)
for i = 2, #KEYS do redis.call("PERSIST", KEYS[i]) end
return {"created", ARGV[2]}
