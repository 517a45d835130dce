// Digests of index arrays, by which plans are looked up.
//
// Each of the two words of a digest is the value at a random point of a polynomial modulo 2^61 - 1, whose coefficients
// are the hashes of the blocks of the array (simd/digest.inc.h). The keys are drawn once per process, so whoever wrote
// the array does not know them: two given arrays of equal size, at most 2^31 elements, have equal digests with a
// probability below 2^-60.
#ifndef SPARSEJAX_RUNTIME_DIGEST_H_
#define SPARSEJAX_RUNTIME_DIGEST_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>

#include "isa.h"

namespace sparsejax {

struct DigestKeys {
  static constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

  std::array<uint32_t, 2 * kDigestBlock> block;
  std::array<uint64_t, 2> point;

  DigestKeys() {
    std::random_device random;
    for (uint32_t& key : block) key = random();
    for (uint64_t& key : point) key = ((uint64_t{random()} << 32) | random()) % kPrime;
  }
};

// The digest of n numbers. Arrays of different sizes are not told apart by it.
inline std::array<int64_t, 2> DigestOf(const int32_t* values, int64_t n) {
  static const auto* const keys = new DigestKeys;  // never destroyed, as the plans
  std::array<uint64_t, 2> digest{}, sums{};
  const auto add = [&](const int32_t* block) {
    Table().digest_block(block, keys->block.data(), sums.data());
    for (int i = 0; i < 2; ++i)
      for (const uint64_t half : {sums[i] >> 32, sums[i] & UINT32_MAX}) {
        const auto product = static_cast<unsigned __int128>(digest[i]) * keys->point[i] + half;
        const uint64_t folded =
            (static_cast<uint64_t>(product) & DigestKeys::kPrime) + static_cast<uint64_t>(product >> 61);
        digest[i] = folded >= DigestKeys::kPrime ? folded - DigestKeys::kPrime : folded;
      }
  };
  const int64_t whole = n - n % kDigestBlock;
  for (int64_t i = 0; i < whole; i += kDigestBlock) add(values + i);
  if (whole < n) {
    std::array<int32_t, kDigestBlock> rest{};
    std::copy(values + whole, values + n, rest.begin());
    add(rest.data());
  }
  return {static_cast<int64_t>(digest[0]), static_cast<int64_t>(digest[1])};
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_DIGEST_H_
