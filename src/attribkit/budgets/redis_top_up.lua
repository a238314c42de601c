-- KEYS: the counter, the entries of its budget. ARGV: amount, entry.
redis.call('HSET', KEYS[1], 'extra', write(add(read(redis.call('HGET', KEYS[1], 'extra')), read(ARGV[1]))))
redis.call('RPUSH', KEYS[2], ARGV[2])
return redis.call('HMGET', KEYS[1], 'spent', 'reserved', 'extra', 'lent')
