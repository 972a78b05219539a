-- One exchange of a replica with its fleet, all in one: it tells of calls, keeps or takes the lease, is granted calls,
-- and hears of the calls of others.
--
-- KEYS: the lease (a replica's name; it holds as long as there is a session of that replica); the ledger (a sorted set:
-- the name of each call, by the time in ms at which it counts at the latest; and `origin` at infinity, if nothing is
-- missing in it); the session of who was last seen to hold the lease, and the session of who asks.
-- ARGV: who asks; how long the lease is to last (0: give it back); whether it may take it; whether it vouches that
-- nothing is missing; how many calls it wants; the number of the first; how long each may take until it counts; how far
-- it wants to look back (-1: not at all); how long calls are kept; the channel and the words that tell of granted calls,
-- or without numbers that the lease was taken or given back; who was last seen to hold the lease; then the limits (their
-- number; requests and window of each), the calls to be entered (their number; name and age of each), and those to be
-- taken out (their number; names). All times in ms.
-- Returns who holds the lease, whether it was taken just now, whether nothing is missing, the time, how many calls are
-- granted, and the calls that were looked for with their times.
local lease, ledger, theirs, mine = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, ttl = ARGV[1], tonumber(ARGV[2])
local want, base, latest = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local back, keep = tonumber(ARGV[8]), tonumber(ARGV[9])
local next = 13

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function whole(number) return string.format('%.0f', number) end
-- What is not touched for so long is of no use any more: longer than calls count, and than replicas are at rest.
local stay = whole(2 * keep + 3600000)
local function take()
    next = next + 1
    return ARGV[next - 1]
end

-- A Redis that takes no writes, if only because it is full, is as good as none: then this fails, whatever is to be done.
-- It changes nothing, and comes first, for a full Redis refuses nothing more once a script has written something.
redis.call('ZADD', ledger, 'XX', '0', me)

local limits = {}
for _ = 1, tonumber(take()) do
    table.insert(limits, { requests = tonumber(take()), per = tonumber(take()) })
end
local told = tonumber(take())
for _ = 1, told do
    local name, at = take(), now - tonumber(take())
    -- Of its own calls each knows best; of those of others perhaps less than stands there: that a call has ended.
    local known = string.sub(name, 1, #me + 1) ~= me .. ':' and redis.call('ZSCORE', ledger, name)
    if not known or tonumber(known) > at then redis.call('ZADD', ledger, whole(at), name) end
end
if told > 0 then redis.call('PEXPIRE', ledger, stay) end
for _ = 1, tonumber(take()) do
    redis.call('ZREM', ledger, take())
end

local holder, took = redis.call('GET', lease), 0
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
    -- Those at rest look again at once, and know who makes the calls before they are gathered.
    redis.call('PUBLISH', ARGV[10], ARGV[11])
    redis.call('SET', lease, me, 'PX', stay)
    redis.call('SET', mine, '1', 'PX', ttl)
    holder, took = me, 1
end

if holder == me then
    if ARGV[4] == '1' then redis.call('ZADD', ledger, '+inf', 'origin') end
    redis.call('ZREMRANGEBYSCORE', ledger, '-inf', whole(now - keep))
    redis.call('PEXPIRE', ledger, stay)
end
local known = redis.call('ZSCORE', ledger, 'origin') and 1 or 0

local granted = 0
if holder == me and known == 1 and want > 0 then
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
return { holder or '', took, known, whole(now), granted, calls }
