// Permutations of earlier calls.
//
// The gradient of the values is scattered to the positions in `perm_t`. If these are not a permutation, elements of the
// gradient would remain unwritten, and others would depend on which thread writes last. Checking this takes longer than
// one per cent of a call, so the digests of arrays that were checked are kept.
#ifndef SPARSEJAX_RUNTIME_CHECKED_POSITIONS_H_
#define SPARSEJAX_RUNTIME_CHECKED_POSITIONS_H_

#include <cstdint>
#include <memory>

#include "../plan/positions.h"
#include "plan_cache.h"

namespace sparsejax {

// Whether the first n positions are a permutation of 0, ..., n - 1. An array of which this is known is only read for
// its digest.
inline bool ArePermutation(const int32_t* positions, int64_t n) {
  struct Known {
    int64_t bytes() const { return 0; }
  };
  // Never destroyed, because threads of XLA's pool may outlive static objects.
  static auto* const known = new PlanCache<Known>;
  PlanKey key;
  key.Add(positions, n);
  if (known->Find(key) != nullptr) return true;
  if (!AreDistinct(positions, n, n)) return false;
  known->Keep(key, std::make_shared<const Known>());
  return true;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_CHECKED_POSITIONS_H_
