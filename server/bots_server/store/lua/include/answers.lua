-- Returns the answer of a selection that is kept under an id: digest of its request, end of its lease, taken, offer.
local function read_answer(answers, times, id)
  local packed = redis.call("HGET", answers, id)
  if not packed then return redis.call("ZSCORE", times, id) and damaged(answers, "lacks " .. id) or nil end
  local read, digest, expires, taken, offer, check = pcall(cmsgpack.unpack, packed)
  if not read or check ~= checksum(id, digest or "", expires or "", taken or "") then
    damaged(answers, "has a wrong checksum at " .. id)
  end
  return digest, expires, taken, offer
end

-- Keeps an answer (as `read_answer` returns it) until a time. The field "bytes" is the size of all. Forgets answers whose
-- time is over at `at`, and while all take more than `most` bytes those whose time is over first.
local function keep_answer(answers, times, id, at, till, most, digest, expires, taken, offer)
  local packed = cmsgpack.pack(digest, expires, taken, offer, checksum(id, digest, expires, taken))
  redis.call("HSET", answers, id, packed)
  redis.call("ZADD", times, till, id)
  local bytes = count(answers, "bytes", #packed)
  -- Sixteen at a time, so that forgetting keeps up: each call adds one.
  local oldest = redis.call("ZRANGE", times, 0, 15, "WITHSCORES")
  for i = 1, #oldest, 2 do
    if oldest[i] ~= id and (tonumber(oldest[i + 1]) <= at or bytes > most) then
      bytes = count(answers, "bytes", -redis.call("HSTRLEN", answers, oldest[i]))
      redis.call("HDEL", answers, oldest[i])
      redis.call("ZREM", times, oldest[i])
    end
  end
  local left = math.max(redis.call("PTTL", answers), till - at)
  redis.call("PEXPIRE", answers, left)
  redis.call("PEXPIRE", times, left)
end
