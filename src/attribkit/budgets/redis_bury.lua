-- KEYS: the holder's hash, the hash of holders. ARGV: now, the holder, the prefix of counters, for how many seconds it
-- is remembered what of the dead is known ('': not at all), then id and settled.
local now, freed, told = tonumber(ARGV[1]), 0, {}
for n = 5, #ARGV, 2 do told[ARGV[n]] = ARGV[n + 1] end
local holds = redis.call('HGETALL', KEYS[1])
for n = 1, #holds, 2 do
  local id, key = holds[n], ARGV[3] .. holds[n]
  if id ~= ':buried' then
    local held, share, flushed = string.match(holds[n + 1], '(%d+) (%d+) (%d+)')
    local found = redis.call('HMGET', key, 'spent', 'reserved', 'lent', 'slice')
    local late = minus(read(told[id]), read(flushed))
    if found[1] then
      redis.call('HSET', key, 'spent', write(add(read(found[1]), late)),
        'reserved', write(minus(read(found[2]), read(held))), 'lent', write(minus(read(found[3]), read(share))))
      local slice = tonumber(found[4] or '0')
      if slice > 0 and not zero(late) then
        local start = string.format('%d', math.floor(now / slice) * slice)
        redis.call('HSET', key .. ':slices', start, write(add(read(redis.call('HGET', key .. ':slices', start)), late)))
      end
    end
    redis.call('HSET', KEYS[1], id, '0 0 ' .. write(add(read(flushed), late)))
    if not zero(read(held)) then freed = freed + 1 end
  end
end
if ARGV[4] == '' then
  redis.call('DEL', KEYS[1])
elseif #holds > 0 then
  local facts = redis.call('HGET', KEYS[2], ARGV[2])
  if facts then redis.call('HSET', KEYS[1], ':buried', facts) end
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
redis.call('HDEL', KEYS[2], ARGV[2])
return freed
