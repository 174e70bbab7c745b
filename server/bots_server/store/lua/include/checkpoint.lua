-- Returns a checkpoint as it is stored: uid of its state and message, sealed together, and when it expires, 0: never.
local function checkpoint(name, content, expires)
  return content .. struct.pack(">I6", expires) .. checksum(name, string.format("%.0f", expires))
end

-- Returns when a stored checkpoint expires, 0: never; nil if it is damaged.
local function expiry(name, stored)
  if #stored < 50 then return nil end
  local expires = struct.unpack(">I6", stored, #stored - 13)
  return string.sub(stored, -8) == checksum(name, string.format("%.0f", expires)) and expires or nil
end

-- Keeps a checkpoint.
local function put_checkpoint(checkpoints, expiries, name, content, expires)
  redis.call("HSET", checkpoints, name, checkpoint(name, content, expires))
  redis.call("ZADD", expiries, expires == 0 and "+inf" or expires, name)
end
