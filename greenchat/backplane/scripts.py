"""What Redis does in one step each: the scripts, and the keys that they work on.

All keys have one hash tag, so that a cluster keeps them together, and a script may change several at once. Times are
Redis's own, so that no node's clock matters.

- ``…:room:ROOM`` a hash: the epoch and the position of a room's log; ``…:log:ROOM`` a stream: its entries, each under
  the ID ``epoch-position``; ``…:said:…`` how many lines somebody has said in this epoch.
- ``…:names`` a hash: for each form of each name that is taken ``token node origin owner``; ``…:owners`` whose
  key owns it.
- ``…:nodes`` a hash: for each node until when it counts as alive, in milliseconds, and what it tells the others.
- ``…:inbox:NODE`` a stream: what others tell this node.
"""

import hashlib
from typing import Final

__all__ = ["ALL", "APPEND", "BEAT", "CLAIM", "PREFIX", "RELEASE", "SEND", "STATE", "TELL", "Script"]

PREFIX: Final = "{greenchat}:"


class Script:
    """A script's *text*, and the digest that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_ALIVE: Final = (
    _NOW
    + """
local function alive(node)
    local told = redis.call('HGET', KEYS[2], node)
    return told and tonumber(string.match(told, '^%d+')) > now
end
"""
)

APPEND: Final = Script("""
-- room, log, names, said; epoch, form of the name, token, lines said before, lines, block, origin, said, kept, seconds
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 'epoch' end
local holder = redis.call('HGET', KEYS[3], ARGV[2])
if not holder or string.match(holder, '^%d+') ~= ARGV[3] then return 'fenced' end
local from, lines, block = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local said = string.format('%.0f', from + lines)
local before = redis.call('GET', KEYS[4])
if before then
    before = tonumber(before)
    if before < from then return 'gap' end
    local known = before - from
    if known >= lines then return 'known' end
    for _ = 1, known do block = string.sub(block, string.find(block, '\\n', 1, true) + 1) end
    lines = lines - known
end
redis.call('SET', KEYS[4], said, 'EX', ARGV[10])
local position = redis.call('HINCRBY', KEYS[1], 'position', lines)
local first = string.format('%s-%.0f', ARGV[1], math.max(0, position - ARGV[9]))
redis.call('XADD', KEYS[2], 'MINID', '~', first, string.format('%s-%.0f', ARGV[1], position),
           'b', block, 'l', lines, 'o', ARGV[7], 's', ARGV[8])
redis.call('EXPIRE', KEYS[1], ARGV[10])
redis.call('EXPIRE', KEYS[2], ARGV[10])
return position
""")
"""The position of the last line of a block; or 'known' if it has one already, 'fenced' if the name is another's by now,
'gap' if lines that were said before are not there, and 'epoch' if the log has begun anew."""

STATE: Final = Script(
    _NOW
    + """
-- room, log; epoch, position and digest of the last entry that the caller knows, or nothing, seconds
local epoch, position = redis.call('HGET', KEYS[1], 'epoch'), redis.call('HGET', KEYS[1], 'position')
if epoch and epoch == ARGV[1] and ARGV[2] ~= '0' then
    local fine = tonumber(position) >= tonumber(ARGV[2])
    local id = ARGV[1] .. '-' .. ARGV[2]
    local entry = fine and redis.call('XRANGE', KEYS[2], id, id)[1]
    if entry and redis.sha1hex(entry[2][2]) ~= ARGV[3] then fine = false end
    if not fine then epoch = nil end  -- what the caller has read is lost
end
if not epoch then
    local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
    last = math.max(last and tonumber(string.match(last[1], '^%d+')) or 0, tonumber(ARGV[1]) or 0)
    epoch, position = string.format('%.0f', math.max(now, last + 1)), '0'
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'position', position)
    redis.call('EXPIRE', KEYS[1], ARGV[4])
end
local first = redis.call('XRANGE', KEYS[2], epoch .. '-0', '+', 'COUNT', 1)[1]
local begin = first and string.format('%.0f', tonumber(string.match(first[1], '%d+$')) - first[2][4]) or position
return {epoch, position, begin}
"""
)
"""Epoch, position and begin of a room's log. If that has lost what the caller knows, it begins anew."""

CLAIM: Final = Script(
    _ALIVE
    + """
-- names, nodes, owners, token, a node's inbox without its name; node, origin, owner, seconds, forms of the name
local ousted = {}
for form = 5, #ARGV do
    local holder = redis.call('HGET', KEYS[1], ARGV[form])
    if holder then
        local _, _, token, node, origin, owner = string.find(holder, '^(%d+) (%S+) (%S+) (%S+)')
        if node ~= ARGV[1] and alive(node) then
            if origin ~= ARGV[2] and (owner == '-' or owner ~= ARGV[3]) then return 'name-taken' end
            ousted[token] = node
        end
    end
    local owner = redis.call('HGET', KEYS[3], ARGV[form])
    if owner and owner ~= ARGV[3] then return 'name-owned' end
end
local token = redis.call('INCR', KEYS[4])
for form = 5, #ARGV do
    redis.call('HSET', KEYS[1], ARGV[form], string.format('%.0f %s %s %s', token, ARGV[1], ARGV[2], ARGV[3]))
    if ARGV[3] ~= '-' then redis.call('HSET', KEYS[3], ARGV[form], ARGV[3]) end
end
for old, node in pairs(ousted) do
    redis.call('XADD', KEYS[5] .. node, 'MAXLEN', '~', 10000, '*', 'm', '{"t":"gone","token":' .. old .. '}')
    redis.call('EXPIRE', KEYS[5] .. node, ARGV[4])
end
return token
"""
)
"""A token, larger than any before, by which the name is this node's; or why not. Whoever had it elsewhere and is the
same, by its session or by its key, is told to go."""

RELEASE: Final = Script("""
-- names; token, forms of the name
for form = 2, #ARGV do
    local holder = redis.call('HGET', KEYS[1], ARGV[form])
    if holder and string.match(holder, '^%d+') == ARGV[1] then redis.call('HDEL', KEYS[1], ARGV[form]) end
end
return 1
""")
"""Free a name, if it is still had by this token."""

BEAT: Final = Script(
    _NOW
    + """
-- nodes; node, milliseconds, what it tells
local mine, told = redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGETALL', KEYS[1])
local others = {mine and tonumber(string.match(mine, '^%d+')) > now and 1 or 0}
for at = 1, #told, 2 do
    local _, _, ends, what = string.find(told[at + 1], '^(%d+) (.*)')
    if tonumber(ends) <= now then
        redis.call('HDEL', KEYS[1], told[at])
    elseif told[at] ~= ARGV[1] then
        others[#others + 1] = told[at]
        others[#others + 1] = what
    end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[2], ARGV[3]))
return others
"""
)
"""Be alive for so long. Whether this node was until now, and then each other that is, with what it tells."""

TELL: Final = Script(
    _ALIVE
    + """
-- names, nodes, a node's inbox without its name; form of the name, message, seconds
local holder = redis.call('HGET', KEYS[1], ARGV[1])
local node = holder and string.match(holder, '^%d+ (%S+)')
if not node or not alive(node) then return '' end
redis.call('XADD', KEYS[3] .. node, 'MAXLEN', '~', 10000, '*', 'm', ARGV[2])
redis.call('EXPIRE', KEYS[3] .. node, ARGV[3])
return node
"""
)
"""Tell the node that a user is on; which one that is, or nothing."""

SEND: Final = Script("""
-- a node's inbox; message, seconds
redis.call('XADD', KEYS[1], 'MAXLEN', '~', 10000, '*', 'm', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")
"""Tell a node something."""

ALL: Final = (APPEND, STATE, CLAIM, RELEASE, BEAT, TELL, SEND)
