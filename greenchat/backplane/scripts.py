"""What Redis does in one step each: the scripts, and the keys that they work on.

All keys have one hash tag, so that a cluster keeps them together, and a script may change several at once. Times are
Redis's own, so that no node's clock matters.

- ``…:room:ROOM`` a hash: the epoch and the position of a room's log; ``…:log:ROOM`` a stream: its entries, each under
  the ID ``epoch-position``; ``…:said:…`` how many lines somebody has said in this epoch.
- ``…:names`` a hash: for each form of each name that is taken its lease, ``token node origin owner attempt``;
  ``…:owners`` whose key owns it, and all its forms; ``…:cancelled:NODE:ORIGIN`` up to which of its claims a node has
  given up.
- ``…:nodes`` a hash: for each node until when it counts as alive, in milliseconds, and what it tells of itself.
- ``…:inbox:NODE`` a stream: what others tell this node.
"""

import hashlib
from typing import Final

__all__ = [
    "ALL", "APPEND", "BEAT", "CANCEL", "CLAIM", "FREE", "OLD_OWNED", "OTHERS", "PREFIX", "RECENT", "RELEASE", "RENEW",
    "SEND", "STATE", "SWEEP", "TELL", "Script",
]  # fmt: skip

PREFIX: Final = "{greenchat}:"


class Script:
    """A script's *text*, and the digest that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


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
    redis.call('XADD', inbox, 'MAXLEN', '~', most, '*', 'm', message)
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

APPEND: Final = Script(
    _NOW
    + """
-- room, log, names, said; epoch, form of the name, lease, lines said before, lines, block, origin, said, kept, seconds,
-- seconds that it is known how much was said, and how much that is otherwise
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'epoch' end
local lease = redis.call('HGET', KEYS[3], ARGV[2])
if not lease then return 'unheld' end
if lease ~= ARGV[3] then return {lease} end
local from, lines, block = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local said = string.format('%.0f', from + lines)
local before = tonumber(redis.call('GET', KEYS[4]) or ARGV[12])
if before < from then return 'gap' end
local known, rest = before - from, 1
if known >= lines then return 'known' end
for _ = 1, known do rest = string.find(block, '\\n', rest, true) + 1 end
block, lines = string.sub(block, rest), lines - known
local position = redis.call('HGET', KEYS[1], 'position') + lines
local first = string.format('%s-%.0f', ARGV[1], math.max(0, position - ARGV[9]))
redis.call('XADD', KEYS[2], 'MINID', '~', first, string.format('%s-%.0f', ARGV[1], position),
           'b', block, 'l', lines, 'o', ARGV[7], 's', ARGV[8], 't', string.format('%.0f', now))
redis.call('HSET', KEYS[1], 'position', string.format('%.0f', position))
redis.call('SET', KEYS[4], said, 'EX', ARGV[11])
redis.call('EXPIRE', KEYS[1], ARGV[10])
redis.call('EXPIRE', KEYS[2], ARGV[10])
return position
"""
)
"""The position of the last line of a block; or 'known' if it has one already, the other lease in a list if the name has
another by now, 'unheld' if it has none, 'gap' if lines said before are missing, 'epoch' if the log has begun anew."""

STATE: Final = Script(
    _NOW
    + """
-- room, log, said; epoch, position and digest of the last entry that the caller has read, seconds, speaker
local epoch, position = redis.call('HGET', KEYS[1], 'epoch'), redis.call('HGET', KEYS[1], 'position')
local function first() return redis.call('XRANGE', KEYS[2], epoch .. '-0', '+', 'COUNT', 1)[1] end
if epoch == ARGV[1] then
    local fine = tonumber(position) >= tonumber(ARGV[2])
    if fine and ARGV[3] ~= '' then
        local id = ARGV[1] .. '-' .. ARGV[2]
        local entry, oldest = redis.call('XRANGE', KEYS[2], id, id)[1], first()
        if entry then
            local fields = entry[2]
            fine = redis.sha1hex(fields[2] .. '\\0' .. fields[6] .. '\\0' .. fields[8]) == ARGV[3]
        else  -- it was trimmed, or else is lost
            fine = oldest and tonumber(string.match(oldest[1], '%d+$')) > tonumber(ARGV[2])
        end
    end
    if not fine then epoch = nil end
elseif epoch and ARGV[1] ~= '' and tonumber(epoch) < tonumber(ARGV[1]) then
    epoch = nil
end
if not epoch then
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    last = math.max(last and ends(last[1]) or 0, tonumber(ARGV[1]) or 0)
    epoch, position = string.format('%.0f', math.max(now, last + 1)), '0'
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'position', position)
end
for key = 1, 2 do redis.call('EXPIRE', KEYS[key], ARGV[4]) end
local oldest = first()
local begin = oldest and string.format('%.0f', tonumber(string.match(oldest[1], '%d+$')) - oldest[2][4]) or position
return {epoch, position, begin, redis.call('GET', KEYS[3] .. epoch .. ARGV[5]) or ''}
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

CLAIM: Final = Script(
    _ALIVE
    + _TELL
    + """
-- names, nodes, owners, token, a node's inbox without its name, cancelled;
-- node, origin, owner, attempt, number of the claim, messages in an inbox, seconds, forms of the name
local cancelled = redis.call('GET', KEYS[6])
if cancelled and tonumber(cancelled) >= tonumber(ARGV[5]) then return 'unavailable' end
local ousted = {}
for form = 8, #ARGV do
    local lease = redis.call('HGET', KEYS[1], ARGV[form])
    if lease then
        local _, _, node, origin, owner, attempt = string.find(lease, '^%d+ (%S+) (%S+) (%S+) ?(%d*)')
        if origin == ARGV[2] and tonumber(ARGV[4]) < (tonumber(attempt) or 0) then return 'name-taken' end
        if node ~= ARGV[1] and alive(node) then
            if origin ~= ARGV[2] and (owner == '-' or owner ~= ARGV[3]) then
                return form == 8 and 'name-taken' or 'name-alike'
            end
            ousted[lease] = node
        end
    end
    local owned = redis.call('HGET', KEYS[3], ARGV[form])
    if owned and string.match(owned, '^%S+') ~= ARGV[3] then return 'name-owned' end
end
local lease = string.format('%.0f %s %s %s %s', redis.call('INCR', KEYS[4]), ARGV[1], ARGV[2], ARGV[3], ARGV[4])
local owned = ARGV[3] .. ' ' .. cjson.encode({unpack(ARGV, 8)})
local before = redis.call('HGET', KEYS[3], ARGV[8])
if before and before ~= owned then  -- its other forms were made by the rules of another version
    redis.call('HDEL', KEYS[3], unpack(cjson.decode(string.match(before, ' (.*)'))))
end
for form = 8, #ARGV do
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

RENEW: Final = Script("""
-- owners; what is stored for a name, key, forms of the name
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], unpack(cjson.decode(string.match(ARGV[1], ' (.*)'))))
local owned = ARGV[2] .. ' ' .. cjson.encode({unpack(ARGV, 3)})
for form = 3, #ARGV do redis.call('HSETNX', KEYS[1], ARGV[form], owned) end
return 1
""")
"""Store these forms of a name that a key owns instead of its others."""

FREE: Final = Script("""
-- owners; form of a name
local owned = redis.call('HGET', KEYS[1], ARGV[1])
return owned and redis.call('HDEL', KEYS[1], unpack(cjson.decode(string.match(owned, ' (.*)')))) or 0
""")
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
    if redis.call('HEXISTS', KEYS[2], node) == 0 then redis.call('HDEL', KEYS[1], page[2][at]) end
end
return page[1]
"""
)
"""Forget nodes that have not been alive for so long, and then their names, a part at a time; where to go on."""

TELL: Final = Script(
    _ALIVE
    + _TELL
    + """
-- names, nodes, a node's inbox without its name; form of the name, message, messages in an inbox, seconds
local lease = redis.call('HGET', KEYS[1], ARGV[1])
local node = lease and string.match(lease, '^%d+ (%S+)')
if not node or not alive(node) then return '' end
tell(KEYS[3] .. node, ARGV[2], ARGV[3], ARGV[4])
return node
"""
)
"""Tell the node that a user is on; which one that is, or nothing."""

SEND: Final = Script(
    _TELL
    + """
-- a node's inbox; message, messages in an inbox, seconds
tell(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
return 1
"""
)
"""Tell a node something."""

ALL: Final = (
    APPEND, STATE, RECENT, CLAIM, CANCEL, RELEASE, OLD_OWNED, RENEW, FREE, BEAT, OTHERS, SWEEP, TELL, SEND,
)  # fmt: skip
