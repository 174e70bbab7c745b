--[[
  Reads the clock of the server that has a key. Changes nothing.

  KEYS[1]  dataset (hash), or datasets (set)
  Returns milliseconds since 1970. Safe to repeat.
]]
--- @include now
return now()
