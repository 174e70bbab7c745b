--[[
  Makes an uploaded dataset appear under its name, whole or not at all.

  KEYS[1]   dataset (hash)
  KEYS[2]   strata, KEYS[3..] columns: staged, each with an hour to live
  ARGV[1]   uid
  ARGV[2]   fingerprint
  ARGV[3]   record (DatasetRecord)

  Returns {status, record}: status "created", "exists" (equal content: the record is the one that was there), "taken"
  (the name has other content), "expired" (something staged is gone).

  Safe to repeat: a dataset of the same uid is the one that this call created.
]]
local there = redis.call("HMGET", KEYS[1], "uid", "fingerprint", "record")
if there[1] == ARGV[1] then return {"created", there[3]} end
if there[1] then return {there[2] == ARGV[2] and "exists" or "taken", there[3]} end

-- At most 1 + size / 1: a chunk holds at least one task; in practice some hundred.
for i = 2, #KEYS do
  if redis.call("EXISTS", KEYS[i]) == 0 then return {"expired", ""} end
end
-- First, because only a command that grows Redis is refused where memory is short, and then nothing is changed.
redis.call("HSET", KEYS[1], "uid", ARGV[1], "fingerprint", ARGV[2], "record", ARGV[3])
for i = 2, #KEYS do
  redis.call("PERSIST", KEYS[i])
end
return {"created", ARGV[3]}
