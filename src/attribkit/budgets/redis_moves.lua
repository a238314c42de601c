-- KEYS: the holder's hash, then the counter of each move. ARGV: now, the holder, the hash of holders, then 18 values
-- for each move.
local now = tonumber(ARGV[1])
local rows, refused = {}, -1
local buried = redis.call('HGET', KEYS[1], ':buried')
if buried then redis.call('HSET', ARGV[3], ARGV[2], buried) end -- a late exchange of the dead: it is buried once more
for index = 2, #KEYS do
  local at = 4 + (index - 2) * 18
  local id, slice, length = ARGV[at], tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8])
  local key = KEYS[index]
  local found = redis.call('HMGET', key, 'spent', 'reserved', 'extra', 'lent')
  if not found[1] then
    redis.call('HSET', key, 'id', id, 'budget', ARGV[at + 1], 'key', ARGV[at + 2], 'window', ARGV[at + 3],
      'unit', ARGV[at + 4], 'start', ARGV[at + 5], 'end', ARGV[at + 6], 'slice', ARGV[at + 7], 'length', ARGV[at + 8],
      'spent', '0', 'reserved', '0', 'extra', found[3] or '0', 'lent', '0')
    redis.call('SADD', ARGV[at + 17], key)
    if ARGV[at + 6] ~= '' then
      local over = 3 * tonumber(ARGV[at + 6]) - 2 * tonumber(ARGV[at + 5]) + 172800
      redis.call('EXPIREAT', key, string.format('%d', math.max(over, now + 86400)))
    end
  end
  local row = {spent = read(found[1]), reserved = read(found[2]), extra = read(found[3]), lent = read(found[4]),
    held = {0, 0}, share = {0, 0}, flushed = {0, 0}, late = {0, 0}, lend = {0, 0}, at = at, key = key, id = id}
  local hold = redis.call('HGET', KEYS[1], id)
  if hold then
    local held, share, flushed = string.match(hold, '(%d+) (%d+) (%d+)')
    row.held, row.share, row.flushed = read(held), read(share), read(flushed)
  end
  if slice > 0 then
    if zero(row.extra) then
      redis.call('EXPIRE', key, length + slice + 172800)
      redis.call('EXPIRE', key .. ':slices', length + slice + 172800)
    end
    local slices = redis.call('HGETALL', key .. ':slices')
    for n = 1, #slices, 2 do
      if tonumber(slices[n]) + slice + length <= now then
        row.spent = minus(row.spent, read(slices[n + 1]))
        redis.call('HDEL', key .. ':slices', slices[n])
      end
    end
  end
  local settled = read(ARGV[at + 10])
  if less(row.flushed, settled) then
    row.late = minus(settled, row.flushed)
    row.spent = add(row.spent, row.late)
    row.flushed = settled
  end
  local back = least(read(ARGV[at + 11]), row.held)
  row.held, row.reserved = minus(row.held, back), minus(row.reserved, back)
  local lent = least(read(ARGV[at + 12]), row.share)
  row.share, row.lent = minus(row.share, lent), minus(row.lent, lent)
  row.take = read(ARGV[at + 13])
  if refused < 0 and not zero(row.take) and ARGV[at + 9] ~= '-1' then
    local room = add(read(ARGV[at + 9]), row.extra)
    if less(room, add(add(row.spent, row.reserved), row.take)) then refused = index - 2 end
  end
  rows[#rows + 1] = row
end
local answer = {tostring(refused)}
for _, row in ipairs(rows) do
  local at = row.at
  if refused < 0 and not zero(row.take) then
    row.held, row.reserved = add(row.held, row.take), add(row.reserved, row.take)
    local share = read(ARGV[at + 14])
    if not zero(share) and ARGV[at + 9] ~= '-1' then
      local wanted = add(add(add(row.spent, row.reserved), share), read(ARGV[at + 15]))
      if not less(add(read(ARGV[at + 9]), row.extra), wanted) then
        row.lend = share
        row.held, row.reserved = add(row.held, share), add(row.reserved, share)
        row.share, row.lent = add(row.share, share), add(row.lent, share)
      end
    end
  end
  if ARGV[at + 16] == '1' then
    row.reserved, row.lent = minus(row.reserved, row.held), minus(row.lent, row.share)
    redis.call('HDEL', KEYS[1], row.id)
  else
    redis.call('HSET', KEYS[1], row.id, write(row.held) .. ' ' .. write(row.share) .. ' ' .. write(row.flushed))
  end
  redis.call('HSET', row.key, 'spent', write(row.spent), 'reserved', write(row.reserved), 'lent', write(row.lent))
  local slice = tonumber(ARGV[at + 7])
  if slice > 0 and not zero(row.late) then
    local start = string.format('%d', math.floor(now / slice) * slice)
    local sum = add(read(redis.call('HGET', row.key .. ':slices', start)), row.late)
    redis.call('HSET', row.key .. ':slices', start, write(sum))
  end
  for _, value in ipairs({row.spent, row.reserved, row.extra, row.lent, row.lend}) do
    answer[#answer + 1] = write(value)
  end
end
return answer
