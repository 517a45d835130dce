// What the plans assume about caches: how many bytes of which data a task may use at a time.
#ifndef SPARSEJAX_PLAN_CACHE_MODEL_H_
#define SPARSEJAX_PLAN_CACHE_MODEL_H_

#include <cstdint>

namespace sparsejax {

// Bytes of a cache line.
constexpr int64_t kLineBytes = 64;

// At least `stride` elements that are an odd number of cache lines. With such a stride, the elements of a column use all
// sets of the first-level cache.
constexpr int64_t OddLines(int64_t stride, int64_t element_bytes) {
  return ((stride * element_bytes + kLineBytes - 1) / kLineBytes | 1) * kLineBytes / element_bytes;
}

// Bytes of packed input per task: half of a 1 MiB second-level cache. The other half is for the results, the pattern
// and the values.
constexpr int64_t kTileBytes = 512 * 1024;

// Bytes of packed input that one pass reads, where a product is computed in passes: a 32 KiB first-level cache
// without the room for a few rows of entries.
constexpr int64_t kPassBytes = 30 * 1024;

// Bytes of partial sums kept between two passes. They share the second-level cache with the input of the pass.
constexpr int64_t kPartialBytes = 512 * 1024;

// Bytes of results that are computed in scratch before they are written to their places: half of a first-level cache.
constexpr int64_t kStageBytes = 16 * 1024;

// Bytes of row-major activations that are prefetched while as many are packed: half of a first-level cache.
constexpr int64_t kAheadBytes = 16 * 1024;

// Results of at least this many bytes are evicted from the caches before anything reads them, so the kernels write
// them with stores that bypass the caches.
constexpr int64_t kStreamBytes = 4 << 20;

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_CACHE_MODEL_H_
