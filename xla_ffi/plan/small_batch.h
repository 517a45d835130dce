// Which matrix products are those of a small batch, whose time is that of reading values and indices once.
#ifndef SPARSEJAX_PLAN_SMALL_BATCH_H_
#define SPARSEJAX_PLAN_SMALL_BATCH_H_

#include <cstdint>

#include "batch_blocks.h"
#include "partition.h"

namespace sparsejax {

// The examples are padded to a power of two, the number of lanes of a packed input.
struct SmallBatch {
  static constexpr int64_t kMost = 16;

  int64_t n;
  int kernel;  // of ProductKernels::small_batch; -1 if the product is not that of a small batch

  // `shared`: whether groups of rows have the same entries (SharedRows). Full vectors have faster kernels for these.
  // Inputs larger than a block of BatchBlocks need its passes.
  template <typename S>
  static SmallBatch Make(const ProductKernels<S>& k, int64_t n, int64_t features, bool shared) {
    const bool is_narrow = n <= k.narrow_lanes[0];
    for (int i = 0; n > 0 && features > 0 && 1 << i <= kMost && k.small_batch[i] != nullptr; ++i) {
      if (n > 1 << i) continue;
      const bool fits = SaturatingMul(features, sizeof(Sum<S>) << i) <= BatchBlocks::BlockBytes();
      return {.n = n, .kernel = fits && (is_narrow || !shared) ? i : -1};
    }
    return {.n = n, .kernel = -1};
  }

  // All examples as one block.
  BatchBlocks Blocks() const {
    const int lanes = 1 << kernel;
    return {.n = n, .width = lanes, .count = 1, .passes = 1, .lanes = lanes, .narrow = -1};
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_SMALL_BATCH_H_
