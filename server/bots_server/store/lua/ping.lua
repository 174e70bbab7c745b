--[[
  Asks whether this Redis takes writes. Changes nothing.

  KEYS[1]  datasets (set)

  Returns 1, or the error of a replica.
]]
-- A replica refuses what may write; a full disk does too, which is no matter here.
local refused = redis.pcall("SREM", KEYS[1], "")
if type(refused) == "table" and string.find(refused.err, "READONLY", 1, true) then return refused end
return 1
