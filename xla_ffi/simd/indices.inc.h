// Whether all of n indices are in [0, limit).

bool AllBelow(const int32_t* values, int64_t n, int32_t limit) {
  // The sign bit of v | (limit - 1 - v) is set exactly where v < 0 or v >= limit.
  uint32_t signs = 0;
  const uint32_t last = static_cast<uint32_t>(limit) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t v = static_cast<uint32_t>(values[i]);
    signs |= v | (last - v);
  }
  return (signs & 0x80000000u) == 0;
}
