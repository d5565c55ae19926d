"""A stream of Redis whose readers notice every entry that is missing, and the scripts that work on it.

The field `after` of each entry names the entry before it. If Redis lost that one, or trimmed it, the reader has not
seen the id that `after` names. Ids grow for the whole life of the publishing database, even if Redis has lost
everything and begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from chassis.events.redis_streams import AFTER, FIELD, EntryId, watermark_entry_of, watermark_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

_LUA: Final = f"""
local function parts(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end
local function is_before(one, other)
  local a, b = parts(one)
  local c, d = parts(other)
  return a < c or (a == c and b < d)
end
local function later(one, other)
  if is_before(one, other) then return other end
  return one
end
local function pairs_of(list)
  local found = {{}}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
-- Of an entry of a foreign publisher, which may name none or something else, nil.
local function after_of(fields)
  local after = pairs_of(fields)['{AFTER}']
  if after and parts(after) then return after end
end
local function last_of(stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  if info['err'] then return '0-0' end
  return pairs_of(info)['last-generated-id']
end
local function append(stream, event, after, floor)
  local now = redis.call('TIME')
  local id = '*'
  local ms, number = parts(floor)
  if now[1] * 1000 + math.floor(now[2] / 1000) <= ms then
    id = string.format('%.0f-%.0f', ms, number + 1)
  end
  return redis.call('XADD', stream, id, '{FIELD}', event, '{AFTER}', after)
end
"""
# Compares and appends in one script, so that nothing is lost or appended in between.
_APPEND: Final = (
    _LUA
    + """
local stream = KEYS[1]
local expected, floor, known_after, watermark = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_length, longest = tonumber(ARGV[5]), tonumber(ARGV[6])
local last = last_of(stream)
local function lost(survivor)
  -- The watermark was true of the stream with the entries that it has lost.
  redis.call('DEL', KEYS[2], KEYS[3])
  return {'lost', survivor}
end
if expected ~= '0-0' then
  local found = redis.call('XRANGE', stream, expected, '+', 'COUNT', 1)[1]
  if not found then
    if is_before(last, expected) then return lost(last) end
  elseif found[1] ~= expected then
    local after = after_of(found[2])
    if not after then
      local before = redis.call('XREVRANGE', stream, '(' .. found[1], '-', 'COUNT', 1)[1]
      after = before and before[1] or '0-0'
    end
    if is_before(after, expected) then return lost(after) end
  end
end
if is_before(expected, last) then return {'ahead', last} end
local sent = {'sent'}
floor = later(floor, last)
local after = later(last, known_after)
for i = 7, #ARGV do
  last = append(stream, ARGV[i], after, floor)
  after, floor = last, last
  sent[#sent + 1] = last
end
if watermark ~= '' then redis.call('MSET', KEYS[2], watermark, KEYS[3], last) end
local length = redis.call('XLEN', stream)
local cut = 0
if length > max_length then
  local needed
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local each = pairs_of(group)
    local first = each['last-delivered-id']
    local pending = redis.call('XPENDING', stream, each['name'])
    if pending[1] > 0 then first = pending[2] end
    if not needed or is_before(first, needed) then needed = first end
  end
  if needed then
    redis.call('XTRIM', stream, 'MINID', '~', needed, 'LIMIT', length - max_length)
    if redis.call('XLEN', stream) > longest then cut = redis.call('XTRIM', stream, 'MAXLEN', '~', longest) end
  else
    redis.call('XTRIM', stream, 'MAXLEN', '~', max_length)
  end
end
table.insert(sent, 2, cut)
return sent
"""
)
APPEND_AGAIN: Final = (
    _LUA
    + """
local last = last_of(KEYS[1])
if last == '0-0' then return 0 end
append(KEYS[1], ARGV[1], last, last)
return 1
"""
)
"""Appends an event that was published before, and returns 1; returns 0 if the stream has no entry yet, because only the
relay, which knows the last entry, can begin a stream."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream has lost every entry after this one. Nothing was appended."""

    survivor: EntryId


@dataclass(frozen=True, slots=True)
class Ahead:
    """The stream has entries that the database does not know of; this is the last one. Nothing was appended."""

    last: EntryId


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of an append.

    Attributes:
        entries: the ids of the events, in their order.
        cut: how many entries were trimmed before every group had read them.
    """

    entries: Sequence[EntryId]
    cut: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Appending:
    """Events to append, and the state that the stream must have.

    Attributes:
        events: each as JSON.
        expected: the last entry that the database knows of; nothing is appended unless it is the stream's last.
        floor: the ids of the new entries are greater than this one.
        after: the entry before the first event, for a stream that has lost it.
        watermark: with these events the stream is complete up to this time; empty if it is not.
    """

    events: Sequence[bytes]
    expected: EntryId
    floor: EntryId
    after: EntryId
    watermark: str


class Stream:
    """A stream, for the one relay that publishes to it.

    Args:
        broker: Redis, with decoded responses.
        name: of the stream.
        max_length: above this length, entries that every group has read are trimmed.
        longest: above this length, entries are trimmed though some group has not read them.
    """

    def __init__(self, broker: Redis, name: str, *, max_length: int, longest: int) -> None:
        self._broker: Final = broker
        self.name: Final = name
        self.max_length: Final = max_length
        self._limits: Final = (str(max_length), str(max(longest, max_length)))
        self._keys: Final = (name, watermark_of(name, broker), watermark_entry_of(name, broker))

    def append(self, appending: Appending) -> Sent | Lost | Ahead:
        """Append the events if the stream ends with `expected`; else return how it differs."""
        ids = (str(appending.expected), str(appending.floor), str(appending.after))
        arguments: list[str | bytes] = [*ids, appending.watermark, *self._limits, *appending.events]
        kind, *rest = cast("list[Any]", self._broker.eval(_APPEND, len(self._keys), *self._keys, *arguments))
        if kind == "sent":
            return Sent([EntryId.parse(each) for each in rest[1:]], int(rest[0]))
        return (Lost if kind == "lost" else Ahead)(EntryId.parse(rest[0]))

    def read_after(self, entry: EntryId, *, count: int) -> list[tuple[EntryId, str]]:
        """Return the next `count` entries behind this one, each with its event."""
        found: Any = self._broker.xrange(self.name, min=f"({entry}", count=count)
        return [(EntryId.parse(name), fields.get(FIELD, "")) for name, fields in found]


LOOK: Final = """
local stream, state, watermark, watermark_entry = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('EXISTS', stream) == 0 then return false end
return {
  redis.call('HGETALL', state),
  redis.call('GET', watermark),
  redis.call('GET', watermark_entry),
  redis.call('XRANGE', stream, '-', '+', 'COUNT', 1),
  redis.call('XINFO', 'STREAM', stream),
  redis.call('XINFO', 'GROUPS', stream),
}
"""
"""Returns the state of a stream and of its groups at one moment; false if there is no stream."""

READ: Final = (
    _LUA
    + """
local stream, state = KEYS[1], KEYS[2]
local name, count, position = ARGV[1], ARGV[2], ARGV[3]
local groups = redis.pcall('XINFO', 'GROUPS', stream)
local before
for _, group in ipairs(groups['err'] and {} or groups) do
  local each = pairs_of(group)
  if each['name'] == name then before = each['last-delivered-id'] end
end
if not before then return redis.error_reply('NOGROUP the stream or the group is gone') end
if redis.call('HGET', state, 'read') ~= before then return {} end
local answer = redis.call('XREADGROUP', 'GROUP', name, name, 'COUNT', count, 'STREAMS', stream, '>')
if not answer then return {} end
local entries = answer[1][2]
local reached = later(before, position)
for _, entry in ipairs(entries) do
  local after = after_of(entry[2])
  if after and is_before(reached, after) then redis.call('HSET', state, 'broken', 1) end
  reached = later(reached, entry[1])
end
redis.call('HSET', state, 'read', entries[#entries][1])
return entries
"""
)
"""Reads a group's next entries; remembers the last of them as `read`, and as `broken` that one before was missing."""

PLACE: Final = (
    _LUA
    + """
local stream, state = KEYS[1], KEYS[2]
local name, position, known = ARGV[1], ARGV[2], ARGV[3]
local from = position
local last = last_of(stream)
if is_before(last, from) then from = last end
local made = redis.pcall('XGROUP', 'CREATE', stream, name, from, 'MKSTREAM')
if made['err'] then
  if string.sub(made['err'], 1, 9) ~= 'BUSYGROUP' then return made end
  if known == '' then return 0 end
  redis.call('XGROUP', 'SETID', stream, name, from)
end
redis.call('HSET', state, 'read', from, 'position', position)
redis.call('HDEL', state, 'broken')
return 1
"""
)
"""Creates a group that begins behind a position; moves an existing one if the third argument is not empty."""
