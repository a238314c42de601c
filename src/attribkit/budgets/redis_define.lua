-- KEYS: definitions, version. ARGV: name, origin, text ("origin" and a line break before the definition).
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known == ARGV[3] then return 0 end
if known and ARGV[2] == 'declared' and string.sub(known, 1, 9) ~= 'declared\n' then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return redis.call('INCR', KEYS[2])
