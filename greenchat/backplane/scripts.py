"""What Redis does in one step each: the scripts, and the keys that they work on.

All keys have one hash tag, so that a cluster keeps them together, and a script may change several at once. Times are
Redis's own, so that no node's clock matters.

- ``…:room:ROOM`` a hash: the epoch and the position of a room's log; ``…:log:ROOM`` a stream: its entries, each under
  the ID ``epoch-position``; ``…:rooms`` a sorted set: when each room was last used.
- ``…:speakers`` a hash: for each origin an epoch, and how many lines it has said there; ``…:forgotten`` a sorted set:
  until when each is remembered.
- ``…:names`` a hash: for each form of each name that is taken its lease, ``token node origin owner attempt``;
  ``…:owners`` whose key owns it, and all its forms; ``…:cancelled:NODE:ORIGIN`` up to which of its claims a node has
  given up; ``…:owned`` a hash: how many names each key owns.
- ``…:nodes`` a hash: for each node until when it counts as alive, in milliseconds, and what it tells of itself.
- ``…:inbox:NODE`` a stream: what others tell this node.
"""

import hashlib
from typing import Final

__all__ = [
    "ALL", "APPEND", "BEAT", "CANCEL", "CLAIM", "FREE", "KINDS", "MEND", "OLD_OWNED", "OTHERS", "PREFIX", "RECENT",
    "RELEASE", "RENEW", "SEND", "STATE", "SWEEP", "TELL", "TRIM", "Script",
]  # fmt: skip

PREFIX: Final = "{greenchat}:"


class Script:
    """A script's *text*, and the digest that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


KINDS: Final = {
    "room": "hash", "log": "stream", "rooms": "zset", "speakers": "hash", "forgotten": "zset", "names": "hash",
    "owners": "hash", "owned": "hash", "token": "number", "cancelled": "number", "nodes": "hash", "inbox": "stream",
}  # fmt: skip
"""The type of each key, by the word after the prefix."""

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function ends(told) return tonumber(string.match(told, '^%d+') or 0) end
"""

_ALIVE: Final = (
    _NOW
    + """
local function alive(node)
    local told = redis.call('HGET', KEYS[2], node)
    return told and ends(told) > now
end
"""
)

_TELL: Final = """
local function tell(inbox, message, most, seconds)
    local told = redis.pcall('XADD', inbox, 'MAXLEN', '~', most, '*', 'm', message)
    if told.err and string.find(told.err, 'WRONGTYPE', 1, true) then  -- another program's
        redis.call('UNLINK', inbox)
        redis.call('XADD', inbox, '*', 'm', message)
    end
    redis.call('EXPIRE', inbox, seconds)
end
"""

_FREE: Final = """
local function free(lease, from)
    for form = from, #ARGV do
        if redis.call('HGET', KEYS[1], ARGV[form]) == lease then redis.call('HDEL', KEYS[1], ARGV[form]) end
    end
end
"""

_SPEAKERS: Final = """
local function said(speakers, epoch, origin)
    local told = redis.call('HGET', speakers, origin)
    local of, lines = string.match(told or '', '^(%d+) (%d+)$')
    return of == epoch and lines or nil
end
"""

_ROOMS: Final = f"""
local function use(room, rooms, most, seconds)
    redis.call('ZADD', rooms, now, string.sub(room, {len(PREFIX) + 1} + #'room:'))
    redis.call('EXPIRE', rooms, seconds)
    if redis.call('ZCARD', rooms) > tonumber(most) then
        local oldest = redis.call('ZRANGE', rooms, 0, 0)[1]
        redis.call('UNLINK', '{PREFIX}room:' .. oldest, '{PREFIX}log:' .. oldest)
        redis.call('ZREM', rooms, oldest)
    end
end
"""

_FORMS: Final = """
local function forms_of(owned)  -- nil if it is not as `CLAIM` writes it
    local decoded, forms = pcall(cjson.decode, string.match(owned or '', '^%S+ (%[.*)') or '')
    return decoded and type(forms) == 'table' and #forms > 0 and forms or nil
end
"""

APPEND: Final = Script(
    _NOW
    + _SPEAKERS
    + _ROOMS
    + """
-- room, log, names, speakers, forgotten, rooms; epoch, form of the name, lease, lines said before, lines, block,
-- origin, said, kept, seconds, seconds that it is known how much was said, how much that is otherwise, most speakers,
-- most rooms
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'epoch' end
local lease = redis.call('HGET', KEYS[3], ARGV[2])
if not lease then return 'unheld' end
if lease ~= ARGV[3] then return {lease} end
local from, lines, block = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local after = string.format('%.0f', from + lines)
local before = tonumber(said(KEYS[4], ARGV[1], ARGV[7]) or ARGV[12])
if before < from then return 'gap' end
local known, rest = before - from, 1
if known >= lines then return 'known' end
for _ = 1, known do rest = string.find(block, '\\n', rest, true) + 1 end
block, lines = string.sub(block, rest), lines - known
local position = tonumber(redis.call('HGET', KEYS[1], 'position'))
if not position then return 'epoch' end
position = position + lines
local first = string.format('%s-%.0f', ARGV[1], math.max(0, position - ARGV[9]))
local added = redis.pcall('XADD', KEYS[2], 'MINID', '~', first, string.format('%s-%.0f', ARGV[1], position),
                          'b', block, 'l', lines, 'o', ARGV[7], 's', ARGV[8], 't', string.format('%.0f', now))
if added.err then  -- entries of another program's may have higher IDs
    return string.find(added.err, 'equal or smaller', 1, true) and 'epoch' or added
end
redis.call('HSET', KEYS[1], 'position', string.format('%.0f', position))
redis.call('HSET', KEYS[4], ARGV[7], ARGV[1] .. ' ' .. after)
redis.call('ZADD', KEYS[5], now + ARGV[11] * 1000, ARGV[7])
for _ = 1, 2 do
    local oldest = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
    if redis.call('ZCARD', KEYS[5]) > tonumber(ARGV[13]) or tonumber(oldest[2]) < now then
        redis.call('ZREM', KEYS[5], oldest[1])
        redis.call('HDEL', KEYS[4], oldest[1])
    end
end
use(KEYS[1], KEYS[6], ARGV[14], ARGV[10])
for _, key in ipairs({1, 2, 4, 5}) do redis.call('EXPIRE', KEYS[key], ARGV[10]) end
return position
"""
)
"""The position of the last line of a block; or 'known' if it has one already, the other lease in a list if the name has
another by now, 'unheld' if it has none, 'gap' if lines said before are missing, 'epoch' if the log has begun anew."""

STATE: Final = Script(
    _NOW
    + _SPEAKERS
    + _ROOMS
    + """
-- room, log, speakers, rooms; epoch, position and digest of the last entry that the caller has read, seconds, speaker,
-- most rooms
local epoch, position = redis.call('HGET', KEYS[1], 'epoch'), redis.call('HGET', KEYS[1], 'position')
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not (string.find(epoch or '', '^%d+$') and string.find(position or '', '^%d+$'))
   or last and ends(last[1]) > tonumber(epoch) then  -- another program has written here
    epoch = nil
end
local function first() return redis.call('XRANGE', KEYS[2], epoch .. '-0', '+', 'COUNT', 1)[1] end
if epoch == ARGV[1] then
    local fine = tonumber(position) >= tonumber(ARGV[2])
    if fine and ARGV[3] ~= '' then
        local id = ARGV[1] .. '-' .. ARGV[2]
        local entry, oldest = redis.call('XRANGE', KEYS[2], id, id)[1], first()
        if entry then
            local fields = entry[2]
            fine = #fields >= 8
                and redis.sha1hex(fields[2] .. '\\0' .. fields[6] .. '\\0' .. fields[8]) == ARGV[3]
        else  -- it was trimmed, or else is lost
            fine = oldest and tonumber(string.match(oldest[1], '%d+$')) > tonumber(ARGV[2])
        end
    end
    if not fine then epoch = nil end
elseif epoch and ARGV[1] ~= '' and tonumber(epoch) < tonumber(ARGV[1]) then
    epoch = nil
end
if not epoch then
    local latest = math.max(last and ends(last[1]) or 0, tonumber(ARGV[1]) or 0)
    epoch, position = string.format('%.0f', math.max(now, latest + 1)), '0'
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'position', position)
end
use(KEYS[1], KEYS[4], ARGV[6], ARGV[4])
for key = 1, 2 do redis.call('EXPIRE', KEYS[key], ARGV[4]) end
local oldest, begin = first(), position
if oldest then
    local lines = tonumber(oldest[2][4]) or 0
    begin = string.format('%.0f', tonumber(string.match(oldest[1], '%d+$')) - lines)
end
return {epoch, position, begin, said(KEYS[3], epoch, ARGV[5]) or ''}
"""
)
"""Epoch, position and begin of a room's log, and how many lines somebody has said. If the log has lost what the caller
knows, it begins anew."""

RECENT: Final = Script(
    _NOW
    + """
-- log; epoch, milliseconds, bytes, entries
local from, size, position = '+', 0, nil
for _ = 1, ARGV[4] do
    local entry = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', 1)[1]
    local epoch, at = string.match(entry and entry[1] or '', '^(%d+)-(%d+)$')
    if epoch ~= ARGV[1] then break end
    position = position or at
    local fields = {}
    for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
    local block, lines, time = fields['b'] or '', tonumber(fields['l']), tonumber(fields['t'])
    size = size + #block
    if not (lines and time) or time < now - ARGV[2] or size > tonumber(ARGV[3]) then break end
    position = string.format('%.0f', at - lines)
    from = '(' .. entry[1]
end
return position or '0'
"""
)
"""The position after which the last entries of a log come, those that are no older than so much."""

TRIM: Final = Script(
    f"""
-- rooms; rank of a room, the one that was used last first, how many to look at, bytes of each, or 0
local rooms, size = redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1), 0
local most = tonumber(ARGV[3])
for _, room in ipairs(rooms) do
    local log = '{PREFIX}log:' .. room
    local used = redis.call('MEMORY', 'USAGE', log) or 0
    if most > 0 and used > most then
        redis.pcall('XTRIM', log, 'MAXLEN', '~', math.floor(redis.pcall('XLEN', log) * most / used))
    end
    size = size + used
end
return {{#rooms, string.format('%.0f', size)}}
"""
)
"""How many rooms there were to look at, and the bytes of their logs; those that have more are trimmed, oldest first."""

CLAIM: Final = Script(
    _ALIVE
    + _TELL
    + _FORMS
    + """
-- names, nodes, owners, token, a node's inbox without its name, cancelled, owned;
-- node, origin, owner, attempt, number of the claim, messages in an inbox, seconds, names each, names in all, forms of
-- the name
local cancelled = redis.call('GET', KEYS[6])
if cancelled and tonumber(cancelled) >= tonumber(ARGV[5]) then return 'unavailable' end
local ousted = {}
for form = 10, #ARGV do
    local lease = redis.call('HGET', KEYS[1], ARGV[form])
    local _, _, node, origin, owner, attempt = string.find(lease or '', '^%d+ (%S+) (%S+) (%S+) ?(%d*)')
    if node then
        if origin == ARGV[2] and tonumber(ARGV[4]) < (tonumber(attempt) or 0) then return 'name-taken' end
        if node ~= ARGV[1] and alive(node) then
            if origin ~= ARGV[2] and (owner == '-' or owner ~= ARGV[3]) then
                return form == 10 and 'name-taken' or 'name-alike'
            end
            ousted[lease] = node
        end
    end
    local owned = redis.call('HGET', KEYS[3], ARGV[form])
    if forms_of(owned) and string.match(owned, '^%S+') ~= ARGV[3] then return 'name-owned' end
end
local before = redis.call('HGET', KEYS[3], ARGV[10])
if ARGV[3] ~= '-' and not forms_of(before) then  -- it is one more
    local each = tonumber(redis.call('HGET', KEYS[7], ARGV[3])) or 0
    if each >= tonumber(ARGV[8]) or redis.call('HLEN', KEYS[3]) >= 3 * ARGV[9] then return 'too-many-names' end
    redis.call('HSET', KEYS[7], ARGV[3], each + 1)
end
local lease = string.format('%.0f %s %s %s %s', redis.call('INCR', KEYS[4]), ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local owned = ARGV[3] .. ' ' .. cjson.encode({unpack(ARGV, 10)})
if before and before ~= owned then  -- its other forms were made by the rules of another version
    redis.call('HDEL', KEYS[3], ARGV[10], unpack(forms_of(before) or {}))
end
for form = 10, #ARGV do
    redis.call('HSET', KEYS[1], ARGV[form], lease)
    if ARGV[3] ~= '-' then redis.call('HSET', KEYS[3], ARGV[form], owned) end
end
for old, node in pairs(ousted) do
    tell(KEYS[5] .. node, '{"t":"gone","lease":"' .. old .. '"}', ARGV[6], ARGV[7])
end
return {lease}
"""
)
"""A lease, by which the name is this node's; or why not. Whoever had it elsewhere and is the same, by its session or by
its key, is told to go."""

CANCEL: Final = Script("""
-- names, cancelled; node, origin, number of the claim, seconds, forms of the name
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
for form = 5, #ARGV do
    local lease = redis.call('HGET', KEYS[1], ARGV[form])
    if lease then
        local _, _, node, origin = string.find(lease, '^%d+ (%S+) (%S+)')
        if node == ARGV[1] and origin == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[form]) end
    end
end
return 1
""")
"""Undo a claim whose answer has not come, or see to it that it is not run any more."""

RELEASE: Final = Script(
    _FREE
    + """
-- names; lease, forms of the name
free(ARGV[1], 2)
return 1
"""
)
"""Free a name, if it is still had by this lease."""

OLD_OWNED: Final = Script("""
-- owners; where to go on, how much to look at, the beginning of a form by the rules of this version
local page, old = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]), {}
for at = 1, #page[2], 2 do
    local is_name = string.sub(page[2][at], 1, 5) == 'name:'
    if is_name and not string.find(page[2][at + 1], '"' .. ARGV[3], 1, true) then
        old[#old + 1], old[#old + 2] = page[2][at], page[2][at + 1]
    end
end
return {page[1], old}
""")
"""Names whose other forms were made by other rules, with what is stored, a part at a time; where to go on."""

RENEW: Final = Script(
    _FORMS
    + """
-- owners; what is stored for a name, key, forms of the name
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[3], unpack(forms_of(ARGV[1]) or {}))
local owned = ARGV[2] .. ' ' .. cjson.encode({unpack(ARGV, 3)})
for form = 3, #ARGV do redis.call('HSETNX', KEYS[1], ARGV[form], owned) end
return 1
"""
)
"""Store these forms of a name that a key owns instead of its others."""

FREE: Final = Script(
    _FORMS
    + """
-- owners, owned; form of a name
local owned = redis.call('HGET', KEYS[1], ARGV[1])
if not owned then return 0 end
local owner = string.match(owned, '^%S+') or ''
local left = (tonumber(redis.call('HGET', KEYS[2], owner)) or 1) - 1
if left > 0 then redis.call('HSET', KEYS[2], owner, left) else redis.call('HDEL', KEYS[2], owner) end
return redis.call('HDEL', KEYS[1], ARGV[1], unpack(forms_of(owned) or {}))
"""
)
"""Let a name be nobody's, in all its forms; whether it was somebody's."""

BEAT: Final = Script(
    _NOW
    + """
-- nodes; node, milliseconds, what it tells
local mine = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[2], ARGV[3]))
return mine and ends(mine) > now and 1 or 0
"""
)
"""Be alive for so long. Whether this node was until now."""

OTHERS: Final = Script(
    _NOW
    + """
-- nodes; node
local others, told = {}, redis.call('HGETALL', KEYS[1])
for at = 1, #told, 2 do
    if told[at] ~= ARGV[1] and ends(told[at + 1]) > now then
        others[#others + 1] = string.match(told[at + 1], ' (.*)') or ''
    end
end
return others
"""
)
"""What each other node tells that is alive."""

SWEEP: Final = Script(
    _NOW
    + """
-- names, nodes; where to go on, how much to look at, milliseconds
if ARGV[1] == '0' then
    local told = redis.call('HGETALL', KEYS[2])
    for at = 1, #told, 2 do
        if ends(told[at + 1]) + ARGV[3] < now then redis.call('HDEL', KEYS[2], told[at]) end
    end
end
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for at = 1, #page[2], 2 do
    local node = string.match(page[2][at + 1], '^%d+ (%S+)')
    if not node or redis.call('HEXISTS', KEYS[2], node) == 0 then redis.call('HDEL', KEYS[1], page[2][at]) end
end
return page[1]
"""
)
"""Forget nodes that have not been alive for so long, and then their names, a part at a time; where to go on."""

TELL: Final = Script(
    _ALIVE
    + _TELL
    + """
-- names, nodes, a node's inbox without its name; form of the name, message, messages in an inbox, seconds,
-- form of the sender's name, its lease
if redis.call('HGET', KEYS[1], ARGV[5]) ~= ARGV[6] then return 'unheld' end
local lease = redis.call('HGET', KEYS[1], ARGV[1])
local node = lease and string.match(lease, '^%d+ (%S+)')
if not node or not alive(node) then return '' end
tell(KEYS[3] .. node, ARGV[2], ARGV[3], ARGV[4])
return node
"""
)
"""Tell the node that a user is on; which one that is, or nothing; 'unheld' if the sender has lost its own name."""

SEND: Final = Script(
    _TELL
    + """
-- a node's inbox; message, messages in an inbox, seconds
tell(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)
"""Tell a node something."""

MEND: Final = Script("""
-- keys; their types
local mended = {}
for at, key in ipairs(KEYS) do
    local found, due = redis.call('TYPE', key).ok, ARGV[at]
    local right = found == (due == 'number' and 'string' or due)
    if due == 'number' and found == 'string' and not tonumber(redis.call('GET', key)) then right = false end
    if found ~= 'none' and not right then
        redis.call('UNLINK', key)
        mended[#mended + 1] = key
    end
end
return mended
""")
"""Remove keys of other types, which another program has put there; which ones."""

ALL: Final = (
    APPEND, STATE, RECENT, TRIM, MEND, CLAIM, CANCEL, RELEASE, OLD_OWNED, RENEW, FREE, BEAT, OTHERS, SWEEP, TELL, SEND,
)  # fmt: skip
