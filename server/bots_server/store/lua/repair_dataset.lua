--[[
  Puts the columns and strata of an upload in the place of a dataset's own, which have the same content and may be damaged.

  KEYS[1]         dataset (hash)
  KEYS[2..1+n]    staged columns and strata of the upload
  KEYS[2+n..1+2n] those of the dataset, in the same order
  KEYS[2+2n..]    keys of the dataset that it has no more: columns beyond, and the note that it is damaged
  ARGV[1]         uid of the dataset     ARGV[3]  n
  ARGV[2]         record (DatasetRecord), with the number of chunks of the upload
  Returns 1, or 0 if the dataset is deleted or a staged key has expired: then nothing is changed.
  Safe to repeat: the repeat finds the staged keys gone and changes nothing.
]]
local n = tonumber(ARGV[3])
if redis.call("HGET", KEYS[1], "uid") ~= ARGV[1] then return 0 end
-- At most 2 + size / 1024 keys, as in commit_dataset.
for i = 2, 1 + n do
  if redis.call("EXISTS", KEYS[i]) == 0 then return 0 end
end
redis.call("HSET", KEYS[1], "record", ARGV[2])
for i = 2, 1 + n do
  redis.call("RENAME", KEYS[i], KEYS[i + n])
  redis.call("PERSIST", KEYS[i + n])
end
for i = 2 + 2 * n, #KEYS do redis.call("UNLINK", KEYS[i]) end
return 1
