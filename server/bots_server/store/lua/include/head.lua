-- Ends the script: a stored value is not what was written, or is missing. What was written before stands by itself.
local function damaged(key, what) error("DAMAGED " .. key .. " " .. what .. " ENDS") end

-- Returns the checksum of words (seal.checksum).
local function checksum(...) return string.sub(redis.sha1hex(table.concat({...}, " ")), 1, 8) end

local HEAD = {"version", "nonce", "snapshot", "trimmed", "forgotten", "ids"}

-- Returns the head of a run by field; nil if the run does not exist. `version` and the like are numbers.
local function read_head(key)
  local values = redis.call("HMGET", key, "check", unpack(HEAD))
  local head, words, found = {}, {}, values[1]
  for i, field in ipairs(HEAD) do
    head[field], words[i] = values[i + 1], values[i + 1] or ""
    found = found or values[i + 1]
  end
  if not found and redis.call("EXISTS", key) == 0 then return nil end
  if values[1] ~= checksum(unpack(words)) then damaged(key, "has a wrong checksum at check") end
  for _, field in ipairs(HEAD) do
    if not head[field] then damaged(key, "lacks " .. field) end
  end
  for _, field in ipairs({"version", "snapshot", "trimmed", "forgotten", "ids"}) do head[field] = tonumber(head[field]) end
  return head
end

-- Writes the head of a run.
local function write_head(key, head)
  local words, values = {}, {}
  for i, field in ipairs(HEAD) do
    words[i] = field == "nonce" and head[field] or string.format("%.0f", head[field])
    values[2 * i - 1], values[2 * i] = field, words[i]
  end
  redis.call("HSET", key, "check", checksum(unpack(words)), unpack(values))
end

-- Returns the nonce of an event; nil if it is not there.
local function nonce_of(key, version)
  local id = string.format("%.0f-0", version)
  local entry = redis.call("XRANGE", key, id, id)[1]
  if not entry then return nil end
  local words = {}
  for i = 1, #entry[2], 2 do words[entry[2][i]] = entry[2][i + 1] end
  if words.c ~= checksum(id, words.n or "", words.t or "") then damaged(key, "has a wrong checksum at " .. id) end
  return words.n
end

-- Returns the head of a run whose own is lost, as its newest and oldest event and its request ids tell; nil if there are
-- none. It names no snapshot.
local function head_of_events(events, requests, at)
  local newest = redis.call("XREVRANGE", events, "+", "-", "COUNT", 1)[1]
  if not newest then return nil end
  local version = tonumber(string.match(newest[1], "%d+"))
  local oldest = tonumber(string.match(redis.call("XRANGE", events, "-", "+", "COUNT", 1)[1][1], "%d+"))
  return {
    version = version, nonce = nonce_of(events, version), snapshot = 0, trimmed = oldest > 1 and oldest or 0,
    forgotten = at, ids = redis.call("HLEN", requests),
  }
end

-- Returns how many events are missing of those that the head of a run promises: 0 unless some were lost.
local function missing_events(key, head)
  local length = redis.pcall("XLEN", key)
  return head.version - math.max(head.trimmed, 1) + 1 - (type(length) == "number" and length or 0)
end

-- Ends the script if events are missing.
local function require_events(key, head)
  local missing = missing_events(key, head)
  if missing ~= 0 then damaged(key, "lacks " .. missing .. " events") end
end
