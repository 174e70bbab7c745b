--[[
  Ends the leases of a job, or of a run.

  KEYS     run (hash), leases (zset), owners (hash), selections (hash)
  ARGV[1]  holder, or ""     ARGV[2]  "1": the leases of all jobs
  Returns how many of these leases were live, -1 if the run is deleted.
  Safe to repeat: the repeat finds the leases ended, returns 0 and changes nothing.
]]
--- @include now
--- @include head
--- @include owner
--- @include end_leases
--- @include end_all_leases
--- @include end_leases_of
if redis.call("EXISTS", KEYS[1]) == 0 then return -1 end
if ARGV[2] == "1" then return end_all_leases(KEYS[2], KEYS[3], KEYS[4], now()) end
return end_leases_of(KEYS[2], KEYS[3], KEYS[4], string.char(#ARGV[1]) .. ARGV[1], now())
