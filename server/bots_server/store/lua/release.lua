--[[
  Ends leases of one selection, and of no other.

  KEYS     run (hash), leases (zset), owners (hash), selections (hash)
  ARGV[1]  selection id     ARGV[2]  tasks, decimals between blanks; "": all of the selection
  Returns how many of these leases were live, -1 if the run is deleted.
  Safe to repeat: the repeat finds the leases ended, returns 0 and changes nothing.
]]
--- @include now
--- @include head
--- @include owner
--- @include end_leases
if redis.call("EXISTS", KEYS[1]) == 0 then return -1 end
local only = ARGV[2] ~= "" and {} or nil
-- At most 10,000, the tasks of a selection.
for task in string.gmatch(ARGV[2], "%d+") do only[task] = true end
return end_leases(KEYS[2], KEYS[3], KEYS[4], ARGV[1], only, now())
