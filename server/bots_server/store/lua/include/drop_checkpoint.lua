-- Deletes a checkpoint and its state.
local function drop_checkpoint(run, checkpoints, expiries, states, name, state)
  count(run, "checkpoint_bytes", -redis.call("HSTRLEN", states, state))
  redis.call("HDEL", states, state)
  redis.call("HDEL", checkpoints, name)
  redis.call("ZREM", expiries, name)
end
