--[[
  Takes the tasks of a selection, all or nothing: each part its first `need` candidates that no live selection has and
  no earlier part took.

  KEYS     run (hash), leases (zset), owners (hash), selections (hash); where an answer is to be kept, its key (hash)
  ARGV[1]  selection id             ARGV[2]  lease in milliseconds, "0": none
  ARGV[3]  digest of the request    ARGV[4]  offer (Offer), kept with the answer
  ARGV[5]  "1": fewer will do       ARGV[6]  milliseconds to keep the answer
  ARGV[7]  number of parts; then need and number of candidates of each part; then the candidates, parts in order

  Returns {status, taken, lacking of each part, tasks leased before, end of the lease, offer, leases purged because
  they were over}: "claimed", "short" (nothing taken), "repeated" (the first answer), "reused" (the id was used for
  another request), or {"gone"}. `taken` are positions among the candidates from 0, between blanks.

  Safe to repeat by the answer, which is kept under the request id, or under the selection id where only a lease is
  asked for. With neither, nothing is changed.
]]
if redis.call("EXISTS", KEYS[1]) == 0 then return {"gone"} end
local kept = KEYS[5] and redis.call("HMGET", KEYS[5], "digest", "taken", "expires", "offer") or {}
local status = kept[1] == ARGV[3] and "repeated" or "reused"
if kept[1] then return {status, kept[2], {}, 0, tonumber(kept[3]), kept[4], 0} end
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- As many as one claim can take, so that purging keeps up with leasing; what is left counts as free all the same.
local over = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now, "LIMIT", 0, 10000)
for _, task in ipairs(over) do
  redis.call("HDEL", KEYS[4], redis.call("HGET", KEYS[3], task) or "")
  redis.call("HDEL", KEYS[3], task)
  redis.call("ZREM", KEYS[2], task)
end

local leases = redis.call("ZCOUNT", KEYS[2], "(" .. now, "+inf")
local taken, tasks, seen, lacking, missing = {}, {}, {}, {}, 0
local past = 8 + 2 * ARGV[7]
for part = 1, tonumber(ARGV[7]) do
  local at, need = past, tonumber(ARGV[6 + 2 * part])
  past = at + ARGV[7 + 2 * part]
  for i = at, past - 1 do
    if need > 0 and not seen[ARGV[i]] and tonumber(redis.call("ZSCORE", KEYS[2], ARGV[i]) or 0) <= now then
      seen[ARGV[i]], need = true, need - 1
      taken[#taken + 1], tasks[#tasks + 1] = i - 8 - 2 * ARGV[7], ARGV[2] ~= "0" and ARGV[i] or nil
    end
  end
  lacking[part], missing = need, missing + need
end
if missing > 0 and ARGV[5] ~= "1" then return {"short", "", lacking, leases, 0, "", #over} end

local expires = now + ARGV[2]
taken = table.concat(taken, " ")
if KEYS[5] then
  redis.call("HSET", KEYS[5], "digest", ARGV[3], "taken", taken, "expires", expires, "offer", ARGV[4])
  redis.call("PEXPIRE", KEYS[5], ARGV[6])
end
if #tasks > 0 then redis.call("HSET", KEYS[4], ARGV[1], table.concat(tasks, " ")) end
for _, task in ipairs(tasks) do
  redis.call("HDEL", KEYS[4], redis.call("HGET", KEYS[3], task) or "")
  redis.call("ZADD", KEYS[2], expires, task)
  redis.call("HSET", KEYS[3], task, ARGV[1])
end
return {"claimed", taken, lacking, leases, expires, ARGV[4], #over}
