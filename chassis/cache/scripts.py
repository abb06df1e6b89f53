"""What Redis runs in one step: scripts in Lua."""

# KEYS: tags; ARGV: a new token, its TTL. Returns the token of each tag, created where missing.
GET_OR_CREATE_TOKENS = """
local tokens = {}
for i, tag in ipairs(KEYS) do
    tokens[i] = redis.call('GET', tag)
    if not tokens[i] then
        redis.call('SET', tag, ARGV[1], 'EX', ARGV[2])
        tokens[i] = ARGV[1]
    end
end
return tokens
"""
RENEW_TOKENS = "for _, tag in ipairs(KEYS) do redis.call('SET', tag, ARGV[1], 'EX', ARGV[2]) end"
