--[[
  Creates a run under a name of its dataset, at the prior or at a given state.

  KEYS     dataset (hash), runs (hash), run (hash), snapshots (hash)
  ARGV[1]  uid of the dataset     ARGV[2]  name of the run
  ARGV[3]  record (RunRecord)     ARGV[4]  state to start from (Snapshot of version 0), or "": the prior
  Returns {status, record}: "created", "exists" (the record that has the name), "gone" (the dataset is deleted).
  Safe to repeat: the record that exists then is this one, which the caller recognises by its uid.
]]
--- @include head
--- @include count_runs
if redis.call("HGET", KEYS[1], "uid") ~= ARGV[1] then return {"gone", ""} end
local there = redis.call("HGET", KEYS[2], ARGV[2])
if there then return {"exists", there} end
local runs = count_runs(KEYS[1], KEYS[2])
redis.call("HSET", KEYS[2], ARGV[2], ARGV[3])
redis.call("HSET", KEYS[1], "runs", runs + 1)
write_head(KEYS[3], {version = 0, nonce = "", snapshot = 0, trimmed = 0, forgotten = 0, ids = 0})
redis.call("HSET", KEYS[3], "written", 0, "written_at_snapshot", 0, "written_before_base", 0, "snapshot_bytes", #ARGV[4],
  "checkpoint_bytes", 0)
if ARGV[4] ~= "" then redis.call("HSET", KEYS[4], 0, ARGV[4]) end
return {"created", ARGV[3]}
