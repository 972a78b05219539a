-- An exchange of one replica: records and removes calls, keeps, returns or acquires the lease, grants calls, and reads
-- the calls of the other replicas, atomically. All times are in milliseconds.
--
-- KEYS
--   1 the lease: the holder's name. It is valid as long as the session of that replica exists.
--   2 the ledger: a sorted set of the names of calls, by the time at which each counts at the latest; and the origin
--     marker at infinity, if no call is missing.
--   3 the session of the last known holder
--   4 the session of the replica that runs the script
-- ARGV
--   1 the name of the replica
--   2 the duration of the lease; 0 returns it
--   3 1 if the replica acquires a lease that no replica holds
--   4 1 if the ledger is complete once these calls are recorded, provided that the replica has held the lease until now
--   5 how many calls it asks for, 6 the number of the first one, and 7 how long after now each counts at the latest
--   8 how far back calls are read; -1 reads none
--   9 how long calls are kept
--   10 the channel, and 11 the head of the message that announces granted calls, or without numbers that the lease has
--      been acquired or returned
--   12 the last known holder
--   13 and further: the number of limits, then calls and window of each; the number of calls to record, then name and
--      age of each; the number of calls to remove, then their names
-- Returns the holder, whether the lease was acquired now, whether the ledger is complete, the time, how many calls are
-- granted, and the calls that were read with their times.
local lease, ledger, theirs, mine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, ttl = ARGV[1], tonumber(ARGV[2])
local want, base, latest = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local back, keep = tonumber(ARGV[8]), tonumber(ARGV[9])
local next = 13

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function whole(number) return string.format('%.0f', number) end
-- Keys that were not touched for this long expire: longer than calls count, and longer than replicas are idle.
local stay = whole(2 * keep + 3600000)
local function take()
    next = next + 1
    return ARGV[next - 1]
end

-- A Redis that refuses writes, for example because it is full, counts as unavailable: this write makes the script fail
-- there. It changes nothing, and comes first, because a full Redis refuses no write after the first one of a script.
redis.call('ZADD', ledger, 'XX', '0', me)

local limits = {}
for _ = 1, tonumber(take()) do
    table.insert(limits, { requests = tonumber(take()), per = tonumber(take()) })
end
local recorded = tonumber(take())
for _ = 1, recorded do
    local name, at = take(), now - tonumber(take())
    -- A replica is right about its own calls. Of another's it may not know that it has ended: the earlier time stays.
    local known = string.sub(name, 1, #me + 1) ~= me .. ':' and redis.call('ZSCORE', ledger, name)
    if not known or tonumber(known) > at then redis.call('ZADD', ledger, whole(at), name) end
end
if recorded > 0 then redis.call('PEXPIRE', ledger, stay) end
for _ = 1, tonumber(take()) do
    redis.call('ZREM', ledger, take())
end

local holder, acquired = redis.call('GET', lease), 0
local session = holder == me and mine or holder == ARGV[12] and theirs
if session and redis.call('EXISTS', session) == 0 then holder = false end
if holder == me and ttl == 0 then
    redis.call('DEL', lease)
    redis.call('PUBLISH', ARGV[10], ARGV[11])
    holder = false
elseif holder == me then
    redis.call('PEXPIRE', lease, stay)
    redis.call('SET', mine, '1', 'PX', ttl)
elseif not holder and ARGV[3] == '1' then
    -- Idle replicas run an exchange at once, so that they follow the new leader without delay.
    redis.call('PUBLISH', ARGV[10], ARGV[11])
    redis.call('SET', lease, me, 'PX', stay)
    redis.call('SET', mine, '1', 'PX', ttl)
    holder, acquired = me, 1
end

if holder == me then
    -- A lease that was free just now may have been lost with the calls that were recorded before.
    if ARGV[4] == '1' and acquired == 0 then redis.call('ZADD', ledger, '+inf', 'origin') end
    redis.call('ZREMRANGEBYSCORE', ledger, '-inf', whole(now - keep))
    redis.call('PEXPIRE', ledger, stay)
end
local complete = redis.call('ZSCORE', ledger, 'origin') and 1 or 0

local granted = 0
if holder == me and complete == 1 and want > 0 then
    granted = want
    for _, limit in ipairs(limits) do
        local spent = redis.call('ZCOUNT', ledger, '(' .. whole(now - limit.per), '(+inf')
        granted = math.max(0, math.min(granted, limit.requests - spent))
    end
    for i = 0, granted - 1 do
        redis.call('ZADD', ledger, whole(now + latest), me .. ':' .. whole(base + i))
    end
    if granted > 0 then redis.call('PUBLISH', ARGV[10], ARGV[11] .. ':' .. whole(base) .. ':' .. granted) end
end

local calls = {}
if back >= 0 then calls = redis.call('ZRANGEBYSCORE', ledger, whole(now - back), '(+inf', 'WITHSCORES') end
return { holder or '', acquired, complete, whole(now), granted, calls }
