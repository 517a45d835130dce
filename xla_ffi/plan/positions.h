// Checks of the positions to which a gradient is scattered.
#ifndef SPARSEJAX_PLAN_POSITIONS_H_
#define SPARSEJAX_PLAN_POSITIONS_H_

#include <cstdint>
#include <vector>

#include "partition.h"

namespace sparsejax {

// Whether the n positions are in [0, limit) and no two are equal. If n = limit too, they are a permutation.
inline bool AreDistinct(const int32_t* positions, int64_t n, int64_t limit) {
  if (n > limit) return false;
  std::vector<uint64_t> seen(CeilDiv(limit, 64));
  uint64_t repeated = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t position = positions[i];
    if (position < 0 || position >= limit) return false;
    const uint64_t bit = uint64_t{1} << (position % 64);
    repeated |= seen[position / 64] & bit;
    seen[position / 64] |= bit;
  }
  return repeated == 0;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_POSITIONS_H_
