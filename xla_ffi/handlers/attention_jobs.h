// The jobs of attention: y = softmax(scale * q k^T + bias) v for each example and head, and its gradient.
//
// Activations are row-major, (batch, length, heads, features). A task packs keys and values of its head into scratch,
// with rows of an odd number of cache lines, and goes through the queries in blocks, and for each block through the
// keys in blocks (Dao 2023, "FlashAttention-2", algorithms 1 and 2). Scores exist for one pair of blocks at a time, in
// cache. The gradient computes them again from the highest score and the logarithm of the sum of each query, which the
// forward pass has stored. A task of the gradient has all queries of its keys, so the gradients of keys and values are
// added up in one order, whatever the number of threads.
#ifndef SPARSEJAX_HANDLERS_ATTENTION_JOBS_H_
#define SPARSEJAX_HANDLERS_ATTENTION_JOBS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>

#include "../plan/cache_model.h"
#include "../plan/partition.h"
#include "../runtime/scratch.h"
#include "types.h"

namespace sparsejax {

// Queries per task of the forward pass, and per block of the gradient. Its blocks of scores, queries and cotangents,
// and the block of keys and values, share a second-level cache of 512 KiB.
constexpr int64_t kTaskQueries = 64;
// Keys per block. Forward, the scores of a vector or two of queries stay in the first-level cache.
constexpr int64_t kForwardKeys = 256, kGradKeys = 128;

struct AttentionSizes {
  int64_t batch, queries, keys, heads, kv_heads, features;
  int64_t group() const { return heads / kv_heads; }  // heads that share keys and values
  int64_t multiply_adds() const {
    return SaturatingMul(SaturatingMul(batch * heads, queries), SaturatingMul(keys, 2 * features));
  }
};

// What is added to the scores of each example and head: numbers and a mask, either of which may be null. A stride is 0
// along an axis that an operand does not have.
template <typename A>
struct Extra {
  struct Strides {
    int64_t batch = 0, head = 0, query = 0, key = 0;
    int64_t At(int64_t b, int64_t h, int64_t i, int64_t j) const { return b * batch + h * head + i * query + j * key; }
  };
  const A* bias = nullptr;
  const bool* mask = nullptr;
  Strides bias_strides{}, mask_strides{};

  bool empty() const { return bias == nullptr && mask == nullptr; }

  // dst[j][l] for `keys` keys and `lanes` queries, in units of log2; zeros for the lanes up to `stride`.
  void Fill(int64_t b, int64_t h, int64_t query, int64_t lanes, int64_t key, int64_t keys, A* dst,
            int64_t stride) const {
    if (bias_strides.query == 0 && mask_strides.query == 0) {  // one number per key
      for (int64_t j = 0; j < keys; ++j) std::fill_n(dst + j * stride, stride, At(b, h, query, key + j));
      return;
    }
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t l = 0; l < lanes; ++l) dst[j * stride + l] = At(b, h, query + l, key + j);
      std::fill(dst + j * stride + lanes, dst + (j + 1) * stride, A(0));
    }
  }

 private:
  A At(int64_t b, int64_t h, int64_t i, int64_t j) const {
    constexpr A kMasked = ScoreBlock<A>::kMasked, kLowest = A(0.9) * kMasked;
    if (mask != nullptr && !mask[mask_strides.At(b, h, i, j)]) return kMasked;
    if (bias == nullptr) return 0;
    const A value = bias[bias_strides.At(b, h, i, j)] * std::numbers::log2e_v<A>;
    return value < kLowest ? kLowest : value;  // a NaN stays one
  }
};

// What both jobs share: operands, sizes, and packing.
template <typename S>
struct AttentionOperands {
  using A = Sum<S>;
  AttentionSizes sizes;
  double scale;
  bool causal;
  Extra<A> extra;
  const S *q = nullptr, *k = nullptr, *v = nullptr;

  // The first element of a query, and of a key, in arrays of the shapes of q and k.
  int64_t QueryAt(int64_t b, int64_t i, int64_t h) const {
    return ((b * sizes.queries + i) * sizes.heads + h) * sizes.features;
  }
  int64_t KeyAt(int64_t b, int64_t j, int64_t h) const {
    return ((b * sizes.keys + j) * sizes.kv_heads + h) * sizes.features;
  }
  int64_t QueryStride() const { return sizes.heads * sizes.features; }
  int64_t KeyStride() const { return sizes.kv_heads * sizes.features; }
  // Elements of a packed row of n features, keys or queries.
  static int64_t Row(int64_t n) { return OddLines(n, sizeof(A)); }

  // The keys and then the values of a head, packed; kept from task to task of a call.
  const A* PackedKeys(int64_t call, int64_t b, int64_t h) const {
    const int64_t row = Row(sizes.features), part = b * sizes.kv_heads + h;
    Scratch& scratch = Scratch::Local(Scratch::kPackedX);
    A* packed = scratch.GetFor<A>(call, 2 * sizes.keys * row);
    if (scratch.Holds(call, part)) return packed;
    const auto& storage = Element<S>::Storage();
    storage.load_rows(k + KeyAt(b, 0, h), sizes.keys, KeyStride(), sizes.features, packed, row);
    storage.load_rows(v + KeyAt(b, 0, h), sizes.keys, KeyStride(), sizes.features, packed + sizes.keys * row, row);
    scratch.Hold(call, part);
    return packed;
  }

  // dst[feature][l] of the queries from i on, with zeros for the lanes from `lanes` to `width`.
  void LoadQueries(const S* x, int64_t b, int64_t i, int64_t h, int64_t lanes, int64_t width, A* dst,
                   int64_t stride) const {
    Element<S>::Storage().load_transposed(x + QueryAt(b, i, h), lanes, sizes.features, QueryStride(), dst, stride);
    for (int64_t f = 0; lanes < width && f < sizes.features; ++f)
      std::fill(dst + f * stride + lanes, dst + f * stride + width, A(0));
  }
  // The other way round.
  void StoreQueries(const A* src, int64_t stride, S* y, int64_t b, int64_t i, int64_t h, int64_t lanes) const {
    Element<S>::Storage().store_transposed(src, sizes.features, lanes, stride, y + QueryAt(b, i, h), QueryStride());
  }

  // The scores of a block of keys for some queries, without the memory that it works in.
  ScoreBlock<A> Block(int64_t query, int64_t lanes, int64_t key, int64_t keys) const {
    ScoreBlock<A> block;
    block.keys = keys, block.lanes = lanes;
    block.factor = static_cast<A>(scale * std::numbers::log2e), block.scale = static_cast<A>(scale);
    if (causal) block.last_key = query - key;
    return block;
  }
};

template <typename S>
struct AttentionJob : AttentionOperands<S> {
  using A = Sum<S>;
  int64_t call;
  S* y = nullptr;
  A *peak = nullptr, *log_sum = nullptr;

  int64_t blocks() const { return CeilDiv(this->sizes.queries, kTaskQueries); }
  int64_t tasks() const { return this->sizes.batch * this->sizes.heads * blocks(); }

  void Run(int64_t task) const {
    const auto& sizes = this->sizes;
    const int64_t head = task / blocks(), b = head / sizes.heads, h = head % sizes.heads;
    const A* packed = this->PackedKeys(call, b, h / sizes.group());
    const int64_t lanes = Element<S>::Attention().lanes, first = task % blocks() * kTaskQueries;
    const int64_t end = std::min(sizes.queries, first + kTaskQueries);
    const int64_t keys = std::min(kForwardKeys, sizes.keys);
    A* memory = Scratch::Local(Scratch::kPackedY).Get<A>((2 * sizes.features + 2 * keys + 4) * lanes);
    for (int64_t i = first; i < end; i += lanes) RunLanes(b, h, i, std::min(lanes, end - i), packed, memory);
  }

 private:
  // The queries from i on, at most as many as are computed together.
  void RunLanes(int64_t b, int64_t h, int64_t i, int64_t n, const A* packed, A* memory) const {
    const auto& sizes = this->sizes;
    const auto& kernels = Element<S>::Attention();
    const int64_t lanes = kernels.lanes, features = sizes.features, row = this->Row(features);
    const int64_t most_keys = std::min(kForwardKeys, sizes.keys);
    A *q = memory, *out = q + features * lanes, *scores = out + features * lanes, *extra = scores + most_keys * lanes;
    A *peaks = extra + most_keys * lanes, *total = peaks + lanes, *decay = total + lanes, *factor = decay + lanes;
    this->LoadQueries(this->q, b, i, h, n, lanes, q, lanes);
    std::fill_n(out, features * lanes, A(0));
    std::fill_n(peaks, lanes, ScoreBlock<A>::kMasked);
    std::fill_n(total, lanes, A(0));
    for (int64_t j = 0; j < sizes.keys; j += kForwardKeys) {
      // Keys after all of these queries, unless one of them has seen nothing yet: then all keys have equal weights.
      if (this->causal && j >= i + n && *std::min_element(peaks, peaks + n) > ScoreBlock<A>::kMasked) break;
      const int64_t keys = std::min(kForwardKeys, sizes.keys - j);
      kernels.product({.a = packed + j * row, .a_row = row, .a_step = 1, .b = q, .b_step = lanes, .c = scores,
                       .c_row = lanes, .rows = keys, .steps = features, .columns = n});
      ScoreBlock<A> block = this->Block(i, n, j, keys);
      block.scores = scores, block.stride = lanes;
      block.peak = peaks, block.total = total, block.decay = decay;
      if (!this->extra.empty()) {
        this->extra.Fill(b, h, i, n, j, keys, extra, lanes);
        block.extra = extra;
      }
      kernels.softmax(block);
      if (j > 0) kernels.scale_lanes(out, features, lanes, n, decay);
      const A* values = packed + (sizes.keys + j) * row;
      kernels.product({.a = values, .a_row = 1, .a_step = row, .b = scores, .b_step = lanes, .c = out, .c_row = lanes,
                       .rows = features, .steps = keys, .columns = n, .accumulate = true});
    }
    for (int64_t l = 0; l < lanes; ++l) factor[l] = l < n && sizes.keys > 0 ? 1 / total[l] : A(0);
    kernels.scale_lanes(out, features, lanes, n, factor);
    this->StoreQueries(out, lanes, y, b, i, h, n);
    const int64_t at = (b * sizes.heads + h) * sizes.queries + i;
    std::copy_n(peaks, n, peak + at);
    for (int64_t l = 0; l < n; ++l) log_sum[at + l] = std::log(total[l]);
  }
};

template <typename S>
struct AttentionGradJob : AttentionOperands<S> {
  using A = Sum<S>;
  const S *ct = nullptr, *y = nullptr;
  const A *ct_log_sum = nullptr, *peak = nullptr, *log_sum = nullptr;
  S *dq = nullptr, *dk = nullptr, *dv = nullptr;

  int64_t tasks() const { return this->sizes.batch * this->sizes.kv_heads; }

  // The keys and values of one head, with all heads of queries that share them.
  void Run(int64_t task) const {
    const auto& sizes = this->sizes;
    const int64_t b = task / sizes.kv_heads, kv_head = task % sizes.kv_heads, row = this->Row(sizes.features);
    const A* packed = this->PackedKeys(Scratch::NewCall(), b, kv_head);
    A* grads = Scratch::Local(Scratch::kOutput).Get<A>(2 * sizes.keys * row);
    std::fill_n(grads, 2 * sizes.keys * row, A(0));
    const Memory memory(sizes);
    for (int64_t h = kv_head * sizes.group(); h < (kv_head + 1) * sizes.group(); ++h)
      for (int64_t i = 0; i < sizes.queries; i += kTaskQueries)
        RunBlock(b, h, i, std::min(kTaskQueries, sizes.queries - i), packed, grads, memory);
    const auto& storage = Element<S>::Storage();
    const int64_t at = this->KeyAt(b, 0, kv_head), stride = this->KeyStride();
    storage.store_rows(grads, sizes.keys, row, sizes.features, dk + at, stride);
    storage.store_rows(grads + sizes.keys * row, sizes.keys, row, sizes.features, dv + at, stride);
  }

 private:
  // Scratch of a task: blocks of queries and cotangents, in both orientations, of scores and of numbers per query.
  struct Memory {
    static constexpr int64_t kNumbers = 4;
    int64_t wide;  // elements from one row of lanes to the next
    A *q, *ct, *dq, *q_rows, *ct_rows, *scores, *slopes, *extra, *peak, *log_sum, *mean;

    explicit Memory(const AttentionSizes& sizes) : wide(AttentionOperands<S>::Row(kTaskQueries)) {
      const int64_t features = sizes.features * wide, rows = kTaskQueries * AttentionOperands<S>::Row(sizes.features);
      const int64_t block = std::min(kGradKeys, sizes.keys) * wide;
      A* next = Scratch::Local(Scratch::kPackedY).Get<A>(3 * features + 2 * rows + 3 * block + 3 * wide);
      const auto take = [&](int64_t n) { return std::exchange(next, next + n); };
      q = take(features), ct = take(features), dq = take(features);
      q_rows = take(rows), ct_rows = take(rows);
      scores = take(block), slopes = take(block), extra = take(block);
      peak = take(wide), log_sum = take(wide), mean = take(wide);
    }
  };

  void RunBlock(int64_t b, int64_t h, int64_t i, int64_t n, const A* packed, A* grads, const Memory& m) const {
    const auto& sizes = this->sizes;
    const auto& kernels = Element<S>::Attention();
    const int64_t features = sizes.features, row = this->Row(features), wide = m.wide;
    const bool sees_nothing = Load(b, h, i, n, m);
    std::fill_n(m.dq, features * wide, A(0));
    for (int64_t j = 0; j < sizes.keys; j += kGradKeys) {
      if (this->causal && j >= i + n && !sees_nothing) break;
      const int64_t keys = std::min(kGradKeys, sizes.keys - j);
      const A *k = packed + j * row, *v = k + sizes.keys * row;
      A *dk = grads + j * row, *dv = dk + sizes.keys * row;
      TileProduct<A> product{.a = k, .a_row = row, .a_step = 1, .b = m.q, .b_step = wide, .c = m.scores, .c_row = wide,
                             .rows = keys, .steps = features, .columns = n};
      kernels.product(product);
      product.a = v, product.b = m.ct, product.c = m.slopes;
      kernels.product(product);
      Slopes(b, h, i, n, j, keys, m);
      kernels.product({.a = k, .a_row = 1, .a_step = row, .b = m.slopes, .b_step = wide, .c = m.dq, .c_row = wide,
                       .rows = features, .steps = keys, .columns = n, .accumulate = true});
      product = {.a = m.scores, .a_row = wide, .a_step = 1, .b = m.ct_rows, .b_step = row, .c = dv, .c_row = row,
                 .rows = keys, .steps = n, .columns = features, .accumulate = true};
      kernels.product(product);
      product.a = m.slopes, product.b = m.q_rows, product.c = dk;
      kernels.product(product);
    }
    this->StoreQueries(m.dq, wide, dq, b, i, h, n);
  }

  // Packs queries and cotangents from i on. Returns whether one of them sees no key.
  bool Load(int64_t b, int64_t h, int64_t i, int64_t n, const Memory& m) const {
    const auto& sizes = this->sizes;
    const auto& storage = Element<S>::Storage();
    const int64_t features = sizes.features, row = this->Row(features), stride = this->QueryStride();
    const int64_t at = this->QueryAt(b, i, h), per_query = (b * sizes.heads + h) * sizes.queries + i;
    this->LoadQueries(this->q, b, i, h, n, m.wide, m.q, m.wide);
    this->LoadQueries(ct, b, i, h, n, m.wide, m.ct, m.wide);
    storage.load_rows(this->q + at, n, stride, features, m.q_rows, row);
    storage.load_rows(ct + at, n, stride, features, m.ct_rows, row);
    std::fill_n(m.peak, 3 * m.wide, A(0));
    bool sees_nothing = false;
    for (int64_t l = 0; l < n; ++l) {
      m.peak[l] = peak[per_query + l];
      m.log_sum[l] = log_sum[per_query + l] * std::numbers::log2e_v<A>;
      m.mean[l] = storage.dot(ct + at + l * stride, y + at + l * stride, features) - ct_log_sum[per_query + l];
      sees_nothing |= m.peak[l] <= ScoreBlock<A>::kMasked;
    }
    return sees_nothing;
  }

  void Slopes(int64_t b, int64_t h, int64_t i, int64_t n, int64_t j, int64_t keys, const Memory& m) const {
    ScoreBlock<A> block = this->Block(i, n, j, keys);
    block.scores = m.scores, block.slopes = m.slopes, block.stride = m.wide;
    block.peak = m.peak, block.total = m.log_sum, block.mean = m.mean;
    if (!this->extra.empty()) {
      this->extra.Fill(b, h, i, n, j, keys, m.extra, m.wide);
      block.extra = m.extra;
    }
    Element<S>::Attention().softmax_grad(block);
  }
};

}  // namespace sparsejax

#endif  // SPARSEJAX_HANDLERS_ATTENTION_JOBS_H_
