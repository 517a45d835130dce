// How a matrix product is cut: the batch into blocks that a tile of registers holds, and the source's features into
// passes, so that what a pass reads stays in cache.
#ifndef SPARSEJAX_PLAN_BATCH_BLOCKS_H_
#define SPARSEJAX_PLAN_BATCH_BLOCKS_H_

#include <algorithm>
#include <cstdint>

#include "../runtime/cache.h"
#include "../simd/table.h"
#include "partition.h"

namespace sparsejax {

struct BatchBlocks {
  int64_t n;       // batch
  int64_t width;   // elements per block
  int64_t count;   // blocks
  int64_t passes;  // over the features of the source
  int lanes;       // of one vector; below the full width for small batches
  int narrow;      // index into the narrow kernels, or -1

  // `row_entries`: stored entries per row, on average. `most_vecs`: vectors of a tile of registers, of the kernels' own
  // most at most.
  template <typename T>
  static BatchBlocks Make(const FloatKernels<T>& k, int64_t n, int64_t features, int64_t row_entries,
                          int64_t most_vecs) {
    BatchBlocks b{n, 0, 0, 1, k.lanes, -1};
    if (n <= k.narrow_lanes[0]) {
      b.narrow = n <= 1 ? 2 : n <= k.narrow_lanes[1] ? 1 : 0;
      b.lanes = k.narrow_lanes[b.narrow];
    }
    const int64_t vectors = std::max<int64_t>(1, CeilDiv(n, b.lanes));
    const int64_t vector_bytes = std::max<int64_t>(1, features * b.lanes * sizeof(T));
    // An entry costs a few instructions besides its multiply-adds: blocks of kGoodTile vectors hide them. Where such a
    // block does not fit the cache, passes over parts of the features do, if a row has entries enough for each.
    const int64_t wanted = std::min(vectors, kGoodTile);
    const int64_t most_passes = std::max<int64_t>(1, row_entries / kEntriesPerPass);
    const int64_t block_bytes = BlockBytes();
    b.passes = std::clamp<int64_t>(CeilDiv(wanted * vector_bytes, block_bytes), 1, most_passes);
    const int64_t fit = b.passes * block_bytes / vector_bytes;
    const int64_t tile = b.narrow >= 0 ? 1 : std::clamp<int64_t>(fit, 2, std::min<int64_t>(most_vecs, k.max_vecs));
    b.count = CeilDiv(vectors, tile);
    b.width = CeilDiv(vectors, b.count) * b.lanes;
    b.count = CeilDiv(vectors * b.lanes, b.width);
    return b;
  }

  int64_t begin(int64_t block) const { return block * width; }
  int64_t valid(int64_t block) const { return std::min(width, n - begin(block)); }
  int vecs(int64_t block) const { return static_cast<int>(CeilDiv(valid(block), lanes)); }
  // One block that is the whole matrix and full vectors: usable in place.
  bool in_place() const { return count == 1 && n == width; }

  // Vectors of a tile that hide what an entry costs besides. Wider ones write more lines at once: products slow down.
  static constexpr int64_t kGoodTile = 8;

 private:
  static constexpr int64_t kEntriesPerPass = 24;  // per row: a pass begins and ends one, and reads and writes its tile

  // A quarter of the second-level cache: values, indices and results stream past, and want room too. Measured best are
  // 256 KiB where it has 1 MiB, and 512 KiB, not more, where it has 2 MiB.
  static int64_t BlockBytes() {
    return std::clamp<int64_t>(SecondLevelCacheBytes() / 4, kTileBytes / 2, kTileBytes);
  }
};

// Where the entries of row r that belong to pass `pass` of `passes` end, after those before `begin`: the first entry
// at or past the pass's last feature. Rows are sorted; of an unsorted one every entry still belongs to some pass.
inline int32_t EndOfPass(const int32_t* indices, int32_t begin, int32_t end, int64_t features, int64_t pass,
                         int64_t passes) {
  if (pass + 1 == passes) return end;
  const int64_t limit = features * (pass + 1) / passes;
  // Entries of a pruned layer are spread about evenly: guess, then walk.
  int32_t at = begin + static_cast<int32_t>(static_cast<int64_t>(end - begin) / (passes - pass));
  while (at > begin && indices[at - 1] >= limit) --at;
  while (at < end && indices[at] < limit) ++at;
  return at;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_BATCH_BLOCKS_H_
