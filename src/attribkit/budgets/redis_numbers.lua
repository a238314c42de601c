-- Lua numbers are exact to 2^53, amounts go to 2^63: each is a pair of whole numbers, {high, low}, in base 10^9.
local BASE = 1000000000
local function read(text)
  text = text or '0'
  if text == false then text = '0' end
  if #text <= 9 then return {0, tonumber(text)} end
  return {tonumber(string.sub(text, 1, -10)), tonumber(string.sub(text, -9))}
end
local function write(a)
  if a[1] == 0 then return string.format('%d', a[2]) end
  return string.format('%d%09d', a[1], a[2])
end
local function add(a, b)
  local low = a[2] + b[2]
  if low >= BASE then return {a[1] + b[1] + 1, low - BASE} end
  return {a[1] + b[1], low}
end
local function less(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end
local function minus(a, b) -- nothing below 0
  if less(a, b) then return {0, 0} end
  local low = a[2] - b[2]
  if low < 0 then return {a[1] - b[1] - 1, low + BASE} end
  return {a[1] - b[1], low}
end
local function least(a, b) if less(a, b) then return a end return b end
local function zero(a) return a[1] == 0 and a[2] == 0 end
