// Patterns of blocks, in which neighbouring rows have the same entries: how they are found, and their kernels.
#ifndef SPARSEJAX_HANDLERS_SHARED_ROWS_H_
#define SPARSEJAX_HANDLERS_SHARED_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "../plan/shared_rows.h"
#include "types.h"

namespace sparsejax {

// The kernels for groups of `shared` rows, and the vectors in their largest tile.
template <typename S>
auto SpmmKernel(int64_t shared) {
  const auto& k = Element<S>::Products();
  return shared == 1 ? k.spmm : k.spmm_shared[shared / 4];
}
template <typename S>
auto BackwardKernel(int64_t shared) {
  const auto& k = Element<S>::Products();
  return shared == 1 ? k.backward : k.backward_shared[shared / 4];
}
template <typename S>
int MostVecs(int64_t shared) {
  const auto& k = Element<S>::Products();
  return shared == 1 ? k.max_vecs : k.shared_max_vecs[shared / 4];
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_SHARED_ROWS_H_
