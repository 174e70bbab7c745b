--[[
  Reads the clock of the server that has a dataset. Changes nothing.

  KEYS[1]  dataset (hash)

  Returns milliseconds since 1970. Safe to repeat.
]]
--- @include now
return now()
