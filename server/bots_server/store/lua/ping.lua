--[[
  Checks that this Redis accepts writes. Changes nothing.

  KEYS[1]  datasets (set)
  Returns 1, or the error of a replica. Safe to repeat.
]]
-- A replica refuses every command that may write. So does a full disk, which does not matter here.
local refused = redis.pcall("SREM", KEYS[1], "")
if type(refused) == "table" and string.find(refused.err, "READONLY", 1, true) then return refused end
return 1
