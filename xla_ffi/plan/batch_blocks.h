// How a matrix product is divided: the batch into blocks that fit a tile of registers, and the features of the source
// into passes, so that the input of a pass stays in cache.
#ifndef SPARSEJAX_PLAN_BATCH_BLOCKS_H_
#define SPARSEJAX_PLAN_BATCH_BLOCKS_H_

#include <algorithm>
#include <cstdint>

#include "../runtime/cache.h"
#include "../simd/table.h"
#include "cache_model.h"
#include "partition.h"

namespace sparsejax {

struct BatchBlocks {
  int64_t n;       // batch
  int64_t width;   // batch elements per block
  int64_t count;   // blocks
  int64_t passes;  // over the features of the source
  int lanes;       // elements of one vector; fewer than a full vector has for small batches
  int narrow;      // index of the kernel for narrow vectors, or -1 for full vectors

  // `row_entries`: average number of stored entries per row. `most_vecs`: limit on the vectors of a tile of
  // registers; the kernels' own limit holds too.
  template <typename S>
  static BatchBlocks Make(const ProductKernels<S>& k, int64_t n, int64_t features, int64_t row_entries,
                          int64_t most_vecs) {
    BatchBlocks b{.n = n, .width = 0, .count = 0, .passes = 1, .lanes = k.lanes, .narrow = -1};
    if (n <= k.narrow_lanes[0]) {
      b.narrow = n <= 1 ? 2 : n <= k.narrow_lanes[1] ? 1 : 0;
      b.lanes = k.narrow_lanes[b.narrow];
    }
    const int64_t vectors = std::max<int64_t>(1, CeilDiv(n, b.lanes));
    const int64_t vector_bytes = std::max<int64_t>(1, SaturatingMul(features, b.lanes * sizeof(S)));
    // An entry costs a few instructions besides its multiply-adds, which blocks of kGoodTile vectors hide. Where the
    // input of such a block does not fit the cache, the features are divided into passes, if a row has enough entries
    // for each.
    const int64_t most = std::min<int64_t>(most_vecs, k.max_vecs), wanted = std::min({vectors, kGoodTile, most});
    const int64_t most_passes = std::max<int64_t>(1, row_entries / kEntriesPerPass);
    const int64_t block_bytes = BlockBytes();
    b.passes = std::clamp<int64_t>(CeilDiv(SaturatingMul(wanted, vector_bytes), block_bytes), 1, most_passes);
    const int64_t fit = b.passes * block_bytes / vector_bytes;
    const int64_t tile = b.narrow >= 0 ? 1 : std::clamp(fit, std::min<int64_t>(2, most), most);
    b.count = CeilDiv(vectors, tile);
    b.width = CeilDiv(vectors, b.count) * b.lanes;
    b.count = CeilDiv(vectors * b.lanes, b.width);
    return b;
  }

  int64_t begin(int64_t block) const { return block * width; }
  int64_t valid(int64_t block) const { return std::min(width, n - begin(block)); }
  int vecs(int64_t block) const { return static_cast<int>(CeilDiv(valid(block), lanes)); }
  // Whether one block of full vectors is the whole matrix, so that kernels can read the source without packing.
  bool in_place() const { return count == 1 && n == width; }

  // Vectors per tile that hide the other costs of an entry. Wider tiles write more cache lines at a time, which makes
  // products slower.
  static constexpr int64_t kGoodTile = 8;

  // Bytes of input per block: a quarter of the second-level cache, because values, indices and results need room in
  // it too. Measured optimum: 256 KiB of a 1 MiB cache, and 512 KiB of a 2 MiB cache.
  static int64_t BlockBytes() {
    return std::clamp<int64_t>(SecondLevelCacheBytes() / 4, kTileBytes / 2, kTileBytes);
  }

 private:
  // Entries per row and pass. Each pass starts and ends the row once more, and reads and writes its tile.
  static constexpr int64_t kEntriesPerPass = 24;
};

// The end of the entries of a row that belong to pass `pass` of `passes`, when those of earlier passes end at
// `begin`: the first entry whose feature is past the pass's last one. Rows are sorted; in an unsorted row each entry
// still belongs to exactly one pass.
inline int32_t EndOfPass(const int32_t* indices, int32_t begin, int32_t end, int64_t features, int64_t pass,
                         int64_t passes) {
  if (pass + 1 == passes) return end;
  const int64_t limit = features * (pass + 1) / passes;
  // The entries of a pruned layer are spread about evenly over the features: start at that estimate, then search
  // linearly.
  int32_t at = begin + static_cast<int32_t>(static_cast<int64_t>(end - begin) / (passes - pass));
  while (at > begin && indices[at - 1] >= limit) --at;
  while (at < end && indices[at] < limit) ++at;
  return at;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_PLAN_BATCH_BLOCKS_H_
