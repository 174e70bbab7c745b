-- Ends the leases that a selection has on its tasks (`only`: on those of them that are keys of this table) and returns
-- how many of these were live at the time `at`. The selection's record ends with its last lease. A task that another
-- selection owns by now is left alone.
--
-- A record is a byte with the length of the job's name, the name, "i" if the selection has an incarnation or else "-", and
-- the leased tasks as decimals between blanks.
local function end_leases(leases, owners, selections, selection, only, at)
  local record = redis.call("HGET", selections, selection)
  if not record then return 0 end
  local live, left = 0, {}
  redis.call("HDEL", selections, selection)
  -- At most 10,000, the tasks of a selection.
  local head = 2 + string.byte(record)
  for task in string.gmatch(string.sub(record, head + 1), "%d+") do
    if only and not only[task] then
      left[#left + 1] = task
    elseif owner(owners, task) == selection then
      if tonumber(redis.call("ZSCORE", leases, task) or 0) > at then live = live + 1 end
      redis.call("HDEL", owners, task)
      redis.call("ZREM", leases, task)
    end
  end
  if #left > 0 then
    redis.call("HSET", selections, selection, string.sub(record, 1, head) .. table.concat(left, " "))
  end
  return live
end
