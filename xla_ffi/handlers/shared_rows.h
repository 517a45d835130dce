// Patterns of blocks, in which neighbouring rows have the same entries: how they are found, and their kernels.
#ifndef SPARSEJAX_HANDLERS_SHARED_ROWS_H_
#define SPARSEJAX_HANDLERS_SHARED_ROWS_H_

#include <cstdint>

#include "../plan/shared_rows.h"
#include "types.h"

namespace sparsejax {

// A kernel for groups of `shared` rows, and the vectors in its largest tile.
template <typename Args>
struct SharedKernel {
  void (*run)(const Args&);
  int most_vecs;
};

template <typename S>
SharedKernel<SpmmArgs<S>> SpmmKernel(int64_t shared) {
  const auto& k = Element<S>::Products();
  if (shared == 1) return {k.spmm, k.max_vecs};
  return {k.spmm_shared[shared / 4], k.spmm_shared_max_vecs[shared / 4]};
}
template <typename S>
SharedKernel<BackwardArgs<S>> BackwardKernel(int64_t shared) {
  const auto& k = Element<S>::Products();
  if (shared == 1) return {k.backward, k.max_vecs};
  return {k.backward_shared[shared / 4], k.backward_shared_max_vecs[shared / 4]};
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_SHARED_ROWS_H_
