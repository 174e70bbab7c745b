-- Returns the versions that have a snapshot, ascending, up to a version. There are at most a dozen or two.
local function snapshot_versions(key, at_most)
  local versions = {}
  for _, field in ipairs(redis.call("HKEYS", key)) do
    if string.match(field, "^%d+$") and tonumber(field) <= at_most then versions[#versions + 1] = tonumber(field) end
  end
  table.sort(versions)
  return versions
end
