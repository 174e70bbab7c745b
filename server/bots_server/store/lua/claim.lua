--[[
  Takes the tasks of a selection, all or nothing: each part its first `need` candidates that no live selection has and
  no earlier part took.

  KEYS     run (hash), leases (zset), owners (hash), selections (hash), jobs (hash), answers (hash), answer_times (zset)
  ARGV[1]  selection id                    ARGV[2]  lease in milliseconds, "0": none
  ARGV[3]  digest of the request           ARGV[4]  offer (Offer), kept with the answer
  ARGV[5]  "1": fewer tasks are accepted   ARGV[6]  milliseconds to keep the answer
  ARGV[7]  holder, at most 193 bytes       ARGV[8]  8 bytes of the incarnation's digest, or ""
  ARGV[9]  id of the answer, "": not kept  ARGV[10] most bytes of all answers
  ARGV[11] number of parts; then need and number of candidates of each part; then the candidates, parts in order

  Returns {status, taken, shortfall of each part, tasks leased before, end of the lease, offer, leases purged because
  they were over, leases ended of the job's earlier incarnations}: "claimed", "short" (nothing taken), "repeated" (the
  first answer), "reused" (the id was used for another request), or {"gone"}. `taken` are positions among the candidates
  from 0, between blanks.

  Safe to repeat by the answer, which is kept under the request id, or under the selection id if only a lease is asked
  for. Without either, no task is leased.
]]
--- @include now
--- @include head
--- @include owner
--- @include end_leases
--- @include end_leases_of
--- @include begin_incarnation
--- @include purge_leases
--- @include count
--- @include answers
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
if ARGV[9] ~= "" then
  local digest, lease_until, first_taken, offer = read_answer(KEYS[6], KEYS[7], ARGV[9])
  local status = digest == ARGV[3] and "repeated" or "reused"
  if digest then return {status, first_taken, {}, 0, tonumber(lease_until), offer, 0, 0} end
end
local at = now()
local ended = begin_incarnation(KEYS[5], KEYS[2], KEYS[3], KEYS[4], ARGV[7], ARGV[8], at)
local purged = purge_leases(KEYS[2], KEYS[3], KEYS[4], at)
local leases = redis.call("ZCOUNT", KEYS[2], "(" .. at, "+inf")
local taken, tasks, seen, shortfall, missing = {}, {}, {}, {}, 0
local first = 12 + 2 * ARGV[11]
local next_part = first
-- Once for each candidate.
for part = 1, tonumber(ARGV[11]) do
  local from, need = next_part, tonumber(ARGV[10 + 2 * part])
  next_part = from + ARGV[11 + 2 * part]
  for i = from, next_part - 1 do
    if need > 0 and not seen[ARGV[i]] then
      local leased_until, selection = lease_end(KEYS[2], KEYS[3], ARGV[i])
      if leased_until <= at then
        seen[ARGV[i]], need = selection or true, need - 1
        taken[#taken + 1], tasks[#tasks + 1] = i - first, ARGV[2] ~= "0" and ARGV[i] or nil
      end
    end
  end
  shortfall[part], missing = need, missing + need
end
if missing > 0 and ARGV[5] ~= "1" then return {"short", "", shortfall, leases, 0, "", purged, ended} end

local expires = at + ARGV[2]
local until_text = string.format("%.0f", expires)
taken = table.concat(taken, " ")
if ARGV[9] ~= "" then
  local till = at + ARGV[6]
  keep_answer(KEYS[6], KEYS[7], ARGV[9], at, till, tonumber(ARGV[10]), ARGV[3], until_text, taken, ARGV[4])
end
local record = string.char(#ARGV[7]) .. ARGV[7] .. (ARGV[8] ~= "" and "i" or "-") .. table.concat(tasks, " ")
if #tasks > 0 then redis.call("HSET", KEYS[4], ARGV[1], record) end
for _, task in ipairs(tasks) do
  if seen[task] ~= true then redis.call("HDEL", KEYS[4], seen[task]) end
  redis.call("ZADD", KEYS[2], expires, task)
  redis.call("HSET", KEYS[3], task, until_text .. " " .. ARGV[1])
end
return {"claimed", taken, shortfall, leases, expires, ARGV[4], purged, ended}
