// Activations of a matrix product: where they lie, and the copies between them and packed blocks of the batch.
#ifndef SPARSEJAX_HANDLERS_ACTIVATIONS_H_
#define SPARSEJAX_HANDLERS_ACTIVATIONS_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../plan/batch_blocks.h"
#include "../plan/cache_model.h"
#include "layouts.h"
#include "types.h"

namespace sparsejax {

// A logical array (batch, features) in either layout.
template <typename S>
struct Activations {
  S* data;
  int64_t n, features;
  bool row_major;

  Activations(S* at, int64_t batch, int64_t count, Layout layout)
      : data(at), n(batch), features(count), row_major(layout == Layout::kRowMajor && batch > 1 && count > 1) {}

  S* At(int64_t feature, int64_t example) const {
    return row_major ? data + example * features + feature : data + feature * n + example;
  }
};

// Whether kernels can read all of it in place, as the only block.
template <typename S>
bool IsInPlace(const Activations<S>& x, const BatchBlocks& blocks) {
  return !x.row_major && blocks.in_place();
}

// Whether kernels can access a block in place, row by row.
template <typename S>
bool IsDirect(const Activations<S>& y, const BatchBlocks& blocks, int64_t block) {
  return !y.row_major && blocks.valid(block) % blocks.lanes == 0;
}

// Packs some features of a block as full vectors, one row per feature.
template <typename S>
void PackRows(const Activations<const S>& x, Range features, const BatchBlocks& b, int64_t block, S* packed) {
  const int64_t stride = static_cast<int64_t>(b.vecs(block)) * b.lanes, valid = b.valid(block);
  const int64_t count = features.end - features.begin;
  const auto& storage = Element<S>::Storage();
  const S* from = x.At(features.begin, b.begin(block));
  if (!x.row_major) return storage.pack_rows(from, count, b.n, valid, packed, stride);
  if (valid < stride) std::fill_n(packed, count * stride, S{});
  // As many examples at a time as the processor's own prefetcher follows, and a few cache lines of each. It does not
  // follow examples of few features; the next ones are contiguous, if they are packed whole.
  constexpr int64_t kLine = kLineBytes / sizeof(S), kFeatures = 4 * kLine;
  const bool ahead = count == x.features && b.lanes * count * static_cast<int64_t>(sizeof(S)) <= kAheadBytes;
  for (int64_t i = 0; i < valid; i += b.lanes)
    for (int64_t f = 0; f < count; f += kFeatures) {
      const int64_t features = std::min(kFeatures, count - f);
      const S* next = from + (i + b.lanes) * count + f * b.lanes;
      for (int64_t at = 0; ahead && at < features * b.lanes; at += kLine) __builtin_prefetch(next + at);
      storage.transpose(from + i * x.features + f, std::min<int64_t>(b.lanes, valid - i), features, x.features,
                        packed + f * stride + i, stride, false);
    }
}

// Writes rows of a packed block, one per feature. `stream`: around the caches.
template <typename S>
void StoreRows(const S* packed, const Activations<S>& y, Range features, const BatchBlocks& b, int64_t block,
               bool stream) {
  const int64_t stride = static_cast<int64_t>(b.vecs(block)) * b.lanes, valid = b.valid(block);
  const int64_t count = features.end - features.begin;
  const auto& storage = Element<S>::Storage();
  S* to = y.At(features.begin, b.begin(block));
  if (!y.row_major) return storage.copy_rows(packed, count, stride, valid, to, b.n);
  storage.transpose(packed, count, valid, stride, to, y.features, stream);
}

// Prefetches the cache lines that PackRows will read, or StoreRows will write: short pieces far apart, which the
// processor's own prefetcher does not follow.
template <typename S>
void PrefetchRows(const Activations<S>& y, Range features, const BatchBlocks& b, int64_t block) {
  if (!y.row_major) return;
  constexpr int64_t kStep = kLineBytes / sizeof(S);
  for (int64_t i = 0; i < b.valid(block); ++i)
    for (int64_t f = features.begin; f < features.end; f += kStep)
      __builtin_prefetch(y.At(f, b.begin(block) + i), std::is_const_v<S> ? 0 : 1);
}

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_ACTIVATIONS_H_
