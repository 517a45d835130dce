// NH, the hash of a block of kDigestBlock numbers m under as many random keys k (Black et al. 1999, UMAC, section 4):
//   sum over i < h of ((m[i] + k[i]) mod 2^32) * ((m[i + h] + k[i + h]) mod 2^32) mod 2^64, h = kDigestBlock / 2.
// Two different blocks have equal sums, or sums with any given difference, with probability 2^-32 over the keys. Two
// sums with keys of their own are formed in one pass, because reading the numbers takes longest.

inline void DigestBlock(const int32_t* m, const uint32_t* keys, uint64_t* sums) {
  constexpr int kHalf = kDigestBlock / 2;
  const uint32_t *first = keys, *second = keys + kDigestBlock;
  uint64_t a = 0, b = 0;
  for (int i = 0; i < kHalf; ++i) {
    const auto low = static_cast<uint32_t>(m[i]), high = static_cast<uint32_t>(m[i + kHalf]);
    a += static_cast<uint64_t>(low + first[i]) * (high + first[i + kHalf]);
    b += static_cast<uint64_t>(low + second[i]) * (high + second[i + kHalf]);
  }
  sums[0] = a;
  sums[1] = b;
}
