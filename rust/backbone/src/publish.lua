-- Gives what waits for one channel its positions, keeps it, and publishes it in one message.
-- KEYS: 1 hash of the channel, 2 stream, then one for each publication with an idempotency key.
-- ARGV: 1 channel to publish in, 2 PUBLISH or SPUBLISH, 3 the server's run_id or '', 4 and 5 epoch and offset that the caller has
-- seen, 6 publications to keep, 7 milliseconds to keep them, 8 milliseconds that an unused channel stays, 9 that an
-- idempotency key stays; then for each publication '1' or '0', whether it has such a key, and its bytes.
-- The answer is epoch and offset of each.
-- The hash: e epoch, o offset of the newest, r who gave that, t when to look for what is too old.
local meta, stream = KEYS[1], KEYS[2]
local run = ARGV[3] ~= '' and ARGV[3] or string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local messages, age = tonumber(ARGV[6]), tonumber(ARGV[7])
local function text(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local ms = math.floor(us / 1000)
local known = redis.call('HMGET', meta, 'e', 'o', 'r', 't')
local epoch, top, look = tonumber(known[1]), tonumber(known[2] or 0), tonumber(known[4] or 0)
local seen_epoch, seen_offset = tonumber(ARGV[4]), tonumber(ARGV[5])
-- Nobody knows it here, or the caller knows better: this server has lost something.
local is_new = not epoch or seen_epoch > epoch or (seen_epoch == epoch and seen_offset > top)
-- Another server gave the last position that is known here, and may have given more: these are left out. By the clock, as
-- a third one may come from the same place later.
local gap = 0
if is_new then
    -- Twice the clock: what a hub began by itself, before it reached any server, has a smaller one.
    epoch, top, look = math.max(2 * us, seen_epoch + 1, (epoch or 0) + 1), 0, 0
elseif known[3] ~= run then
    gap = math.max(1048576, 1024 * ms - top)
end

local answer, records, key = {}, {}, 3
for index = 10, #ARGV, 2 do
    local first_key, first
    if ARGV[index] == '1' then
        first_key, key = KEYS[key], key + 1
        first = redis.call('GET', first_key)
    end
    if first then
        local at, number = string.match(first, '^(%d+)-(%d+)$')
        answer[#answer + 1] = tonumber(at)
        answer[#answer + 1] = tonumber(number)
    else
        if #records == 0 and is_new then
            -- The first write is one that a server without memory refuses, so it is all or nothing.
            redis.call('HSET', meta, 'e', text(epoch), 'o', 0)
            redis.call('DEL', stream)
        end
        local bytes = ARGV[index + 1]
        local offset = top + gap + 1
        local record = struct.pack('<c2BBI4I8I8I8I8', 'fw', 1, 0, #bytes, epoch, top, offset, ms) .. bytes
        if messages > 0 then
            redis.call('XADD', stream, 'MAXLEN', '=', ARGV[6], text(offset) .. '-' .. text(ms), 'r', record)
        end
        if first_key then
            redis.call('SET', first_key, text(epoch) .. '-' .. text(offset), 'PX', ARGV[9])
        end
        records[#records + 1] = record
        answer[#answer + 1] = epoch
        answer[#answer + 1] = offset
        top, gap = offset, 0
    end
end
if #records == 0 then
    return answer
end

-- The first entry from an offset on: that offset, and when it was published.
local function entry(from)
    local found = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    local offset, at = string.match(found[1], '^(%d+)-(%d+)$')
    return tonumber(offset), tonumber(at)
end

redis.call('HSET', meta, 'e', text(epoch), 'o', text(top), 'r', run)
redis.call('PEXPIRE', meta, ARGV[8])
if messages > 0 then
    if age > 0 and ms >= look then
        local low, at = entry('-')
        if at < ms - age then
            local high = top -- just published, so it stays
            while low < high do
                local middle = math.floor((low + high) / 2)
                local offset, published = entry(text(middle))
                if published < ms - age then low = offset + 1 else high = middle end
            end
            redis.call('XTRIM', stream, 'MINID', '=', text(low))
            low, at = entry('-')
        end
        redis.call('HSET', meta, 't', text(math.max(at + age, ms + math.floor(age / 16))))
    end
    redis.call('PEXPIRE', stream, age > 0 and ARGV[7] or ARGV[8])
end
redis.call(ARGV[2], ARGV[1], table.concat(records))
return answer
