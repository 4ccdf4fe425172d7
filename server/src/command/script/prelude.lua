-- What every interpreter runs once, before any script: the world that scripts see.
--
-- Lua 5.1 has no tables that refuse changes. So scripts get stand-ins: empty tables whose index is the real one and whose
-- newindex is an error. The functions that look at a table itself (pairs, next, rawget, ...) look at the real one, and those
-- that would change it refuse.
--
-- `host` is a table of functions and libraries written in Rust.

local host, is_eval = ...

local G = _G
local type, error, select, tostring = type, error, select, tostring
local pairs_of, next_of, rawget_of, rawset_of = pairs, next, rawget, rawset
local setmetatable_of, getmetatable_of, setfenv_of = setmetatable, getmetatable, setfenv
local insert_of, pcall_of, xpcall_of = table.insert, pcall, xpcall
local loadstring_of = loadstring
local floor = math.floor

local READONLY = 'Attempt to modify a readonly table'

-- The real table of each stand-in.
local real_of = setmetatable_of({}, { __mode = 'k' })
-- What getmetatable shows of a stand-in.
local shown_meta = setmetatable_of({}, { __mode = 'k' })

-- What it shows of the metatable of strings.
local string_shown

local function refuse()
    error(READONLY, 2)
end

local function protect(real)
    local stand_in = {}
    real_of[stand_in] = real
    -- The debugger finds at 1 what it stands for, and shows that.
    return setmetatable_of(stand_in, { __index = real, __newindex = refuse, real })
end

local function wants_table(name, t, ...)
    if type(t) ~= 'table' then
        local got = select('#', ...) == 0 and t == nil and 'nil' or type(t)
        error("bad argument #1 to '" .. name .. "' (table expected, got " .. got .. ')', 3)
    end
end

-- Errors of host functions are objects; scripts get what they stand for.
local function unwrapped(err)
    if type(err) == 'userdata' then return host.raised(err) end
    return err
end

-- Functions that see through stand-ins.

function G.pairs(t)
    local real = real_of[t]
    if real then return next_of, real, nil end
    wants_table('pairs', t)
    return pairs_of(t)
end

function G.next(t, k)
    wants_table('next', t)
    return next_of(real_of[t] or t, k)
end

function G.rawget(t, k)
    wants_table('rawget', t)
    return rawget_of(real_of[t] or t, k)
end

function G.rawset(t, k, v)
    wants_table('rawset', t)
    if real_of[t] then error(READONLY, 0) end
    return rawset_of(t, k, v)
end

function G.setmetatable(t, meta)
    wants_table('setmetatable', t)
    if real_of[t] then error(READONLY, 0) end
    if meta ~= nil and type(meta) ~= 'table' then
        error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
    end
    if real_of[meta] then meta = real_of[meta] end
    local old = getmetatable_of(t)
    if type(old) == 'table' and rawget_of(old, '__metatable') ~= nil or (old ~= nil and type(old) ~= 'table') then
        error('cannot change a protected metatable', 2)
    end
    return setmetatable_of(t, meta)
end

function G.getmetatable(t)
    if real_of[t] then return shown_meta[t] end
    local meta = getmetatable_of(t)
    if type(t) == 'string' then return string_shown or meta end
    return meta
end

function G.table.insert(t, ...)
    wants_table('insert', t)
    if real_of[t] then error(READONLY, 0) end
    local count = select('#', ...)
    if count == 1 then return insert_of(t, (...)) end
    if count ~= 2 then error("wrong number of arguments to 'insert'", 2) end
    local at, value = ...
    if type(at) ~= 'number' and not tonumber(at) then
        error("bad argument #2 to 'insert' (number expected, got " .. type(at) .. ')', 2)
    end
    return insert_of(t, at, value)
end

-- An error that is a table with a text is shown as the text.
local function plain(ok, ...)
    if ok then return ok, ... end
    local err = unwrapped((...))
    if type(err) == 'table' then
        local text = rawget_of(real_of[err] or err, 'err')
        if type(text) == 'string' then return false, text end
    end
    return false, err
end

function G.pcall(...)
    if select('#', ...) == 0 then error("bad argument #1 to 'pcall' (value expected)", 2) end
    return plain(pcall_of(...))
end

function G.xpcall(f, handler)
    return xpcall_of(f, function(err) return handler(unwrapped(err)) end)
end

local resume_of = coroutine.resume

local function resumed(ok, ...)
    if ok then return ok, ... end
    return false, unwrapped((...))
end

function G.coroutine.resume(...)
    return resumed(resume_of(...))
end

-- Compiled code lives in the world of scripts, and is text.

local world

local function settled(f, err)
    if f then setfenv_of(f, world) end
    return f, err
end

function G.loadstring(text, name)
    if type(text) ~= 'string' and type(text) ~= 'number' then
        error("bad argument #1 to 'loadstring' (string expected, got " .. type(text) .. ')', 2)
    end
    text = tostring(text)
    if text:sub(1, 1) == '\27' then return nil, 'compiled code is not allowed' end
    return settled(loadstring_of(text, name or text))
end

function G.load(reader, name)
    if type(reader) ~= 'function' then
        error("bad argument #1 to 'load' (function expected, got " .. type(reader) .. ')', 2)
    end
    local parts = {}
    while true do
        local part = reader()
        if part == nil or part == '' then break end
        if type(part) ~= 'string' then return nil, 'reader function must return a string' end
        parts[#parts + 1] = part
    end
    local text = table.concat(parts)
    if text:sub(1, 1) == '\27' then return nil, 'compiled code is not allowed' end
    return settled(loadstring_of(text, name or '=(load)'))
end

-- math.random is the servers' own.

function G.math.random(low, high)
    local r = host.random()
    if low == nil then return r end
    if type(low) ~= 'number' then low = tonumber(low) or error("bad argument #1 to 'random' (number expected, got " .. type(low) .. ')', 2) end
    if high == nil then
        if low < 1 then error("bad argument #1 to 'random' (interval is empty)", 2) end
        return floor(r * floor(low)) + 1
    end
    if type(high) ~= 'number' then high = tonumber(high) or error("bad argument #2 to 'random' (number expected, got " .. type(high) .. ')', 2) end
    low, high = floor(low), floor(high)
    if low > high then error("bad argument #2 to 'random' (interval is empty)", 2) end
    return floor(r * (high - low + 1)) + low
end

function G.math.randomseed(seed)
    local number = tonumber(seed)
    if not number then error("bad argument #1 to 'randomseed' (number expected, got " .. type(seed) .. ')', 2) end
    host.seed(number)
end

-- Libraries.

local cjson = host.cjson
cjson.null = host.null
cjson._NAME, cjson._VERSION = 'cjson', '2.1.0'
local cmsgpack = host.cmsgpack
cmsgpack._NAME, cmsgpack._VERSION = 'cmsgpack', 'lua-cmsgpack 0.4.0'
cmsgpack._COPYRIGHT = 'a library of this server'
cmsgpack._DESCRIPTION = 'MessagePack for Lua'

G.cjson, G.cmsgpack, G.struct, G.bit = cjson, cmsgpack, host.struct, host.bit

local world_meta = {
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
}

local redis = host.redis
redis.LOG_DEBUG, redis.LOG_VERBOSE, redis.LOG_NOTICE, redis.LOG_WARNING = 0, 1, 2, 3
redis.REPL_NONE, redis.REPL_AOF, redis.REPL_SLAVE, redis.REPL_REPLICA, redis.REPL_ALL = 0, 1, 2, 2, 3
redis.REDIS_VERSION, redis.REDIS_VERSION_NUM = host.version, host.version_number

if is_eval then
    function redis.replicate_commands() return true end
    redis.breakpoint, redis.debug = host.breakpoint, host.debug
end

-- While a library registers its functions, it sees nothing else.
local loading = {
    redis = protect(setmetatable_of({
        register_function = host.redis.register_function, log = redis.log,
        LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
        REDIS_VERSION = host.version, REDIS_VERSION_NUM = host.version_number,
    }, world_meta)),
}
setmetatable_of(loading, world_meta)
redis.register_function = nil

-- Only what scripts may have.

local allowed = {
    _G = true, _VERSION = true, assert = true, bit = true, cjson = true, cmsgpack = true, collectgarbage = true,
    coroutine = true, error = true, gcinfo = true, getmetatable = true, ipairs = true, load = true,
    loadstring = true, math = true, next = true, pairs = true, pcall = true, rawequal = true, rawget = true,
    rawset = true, redis = true, select = true, setmetatable = true, string = true, struct = true, table = true,
    tonumber = true, tostring = true, type = true, unpack = true, xpcall = true,
}
for name in pairs_of(G) do
    if not allowed[name] then G[name] = nil end
end

for _, name in ipairs({ 'bit', 'cjson', 'cmsgpack', 'coroutine', 'math', 'string', 'struct', 'table' }) do
    G[name] = protect(G[name])
end
-- Methods of strings stay as quick as they are; what scripts see of their metatable is a stand-in.
string_shown = protect({ __index = G.string })

G.redis = protect(redis)

setmetatable_of(G, world_meta)
world = protect(G)
shown_meta[world] = protect(world_meta)
rawset_of(G, '_G', world)

-- Runs a compiled script, function or (without keys) library; `handler` makes a table of what was raised.
local function run(f, handler, keys, args)
    if not keys then return xpcall_of(f, handler) end
    if is_eval then
        G.KEYS, G.ARGV = keys, args
        return xpcall_of(f, handler)
    end
    return xpcall_of(function() return f(keys, args) end, handler)
end

local function set_loading(is_loading)
    getmetatable_of(world).__index = is_loading and loading or G
end

return world, run, set_loading
