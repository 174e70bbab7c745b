--[[
  Deletes an upload that was not committed.

  KEYS      dataset (hash), and the staged columns and strata
  ARGV[1]   uid of the upload
  Returns 1, or 0 if the upload is committed, because the answer to its commit may have been lost.
  Safe to repeat: a repeat finds nothing to delete. A later commit finds its keys gone and commits nothing.
]]
if redis.call("HGET", KEYS[1], "uid") == ARGV[1] then return 0 end
-- Once for each chunk; UNLINK frees the memory in a thread.
for i = 2, #KEYS do redis.call("UNLINK", KEYS[i]) end
return 1
