--[[
  Reads the kept answers of selections. Changes nothing.

  KEYS     answers (hash), answer_times (zset)
  Returns {id, offer, id, offer, ...}; the offer of a damaged or missing answer is "". Safe to repeat.
]]
--- @include head
--- @include answers
local found = {}
-- As many as history_bytes allows.
local ids = redis.call("ZRANGE", KEYS[2], 0, -1)
for _, id in ipairs(redis.call("HKEYS", KEYS[1])) do
  if id ~= "bytes" and not redis.call("ZSCORE", KEYS[2], id) then ids[#ids + 1] = id end
end
for _, id in ipairs(ids) do
  local read, _, _, _, offer = pcall(read_answer, KEYS[1], KEYS[2], id)
  found[#found + 1] = id
  found[#found + 1] = read and offer or ""
end
return found
