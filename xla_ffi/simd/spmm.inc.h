// y[r][v] = sum over entries e of row r: data[e] * x[offset[e] + v], v in a tile of Q vectors of W lanes.
//
// Layout: x is packed, so the Q vectors of a tile are consecutive; y has two strides and is never read; `init` and
// `sums` are packed; x and y do not alias. Loops: rows, then entries. The tile stays in registers during a row, so an
// entry costs one broadcast and one fused multiply-add per part of a vector (packed.inc.h), whose operand is in memory
// where there is one part. Registers: U * Q * parts accumulators. Short tiles (small Q) are limited by latency, so they
// take U entries at a time. Tails: callers pack to full vectors. Order of the sums:
// entries in steps of U, partial sums added pairwise at the end of the row; fixed per instruction set. Source: Nikdan
// et al. 2023 (SparseProp), section 3, with the output tile in registers instead of memory.

// Prefetches the first entries of a row. Rows are short, so the processor's own prefetcher only follows after that.
template <typename S>
SPARSEJAX_INLINE void PrefetchRow(const SpmmArgs<S>& a, int64_t r) {
  if (r >= a.row_end) return;
  const int64_t e = a.program.begin[r];
#pragma GCC unroll 4
  for (int line = 0; line < 4; ++line) {
    __builtin_prefetch(a.program.offset + e + 16 * line);
    __builtin_prefetch(a.data + e + 64 / sizeof(Sum<S>) * line);
  }
}

// The initial sums where `init` is null, so that the first pass takes the same path without a branch as the others.
template <typename A, int N>
struct Zeros {
  alignas(64) static constexpr A values[N] = {};
};

// Writes a row: its Q vectors of sums to `sums` where that is not null, or else to y.
template <typename S, int W, int Q>
SPARSEJAX_INLINE void WriteRow(const SpmmArgs<S>& a, const typename Packed<S, W>::V* acc, S* y, Sum<S>* sums,
                               bool stream) {
  using P = Packed<S, W>;
  if (sums != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < Q * P::kParts; ++i) Store<Sum<S>, P::kLanes>(sums + i * P::kLanes, acc[i]);
  } else if (stream) {
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) P::WriteLine(y + q * a.y_vec_stride, acc + q * P::kParts);
  } else {
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) P::Write(y + q * a.y_vec_stride, acc + q * P::kParts);
  }
}

template <typename S, int W, int Q, int U>
void SpmmTile(const SpmmArgs<S>& args) {
  using P = Packed<S, W>;
  using V = typename P::V;
  constexpr int K = P::kParts, N = Q * K;
  const SpmmArgs<S> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const int32_t* offset = a.program.offset;
  const int64_t scale = a.program.offset_scale;
  const Sum<S>* init = a.init != nullptr ? a.init : Zeros<Sum<S>, Q * W>::values;
  const int64_t init_stride = a.init != nullptr ? Q * W : 0;
  S* y = a.y;
  Sum<S>* sums = a.sums;
  const bool stream = a.stream && AreLines<S, W>(y, a.y_row_stride, a.y_vec_stride);
  for (int64_t r = a.row_begin; r < a.row_end; ++r, y += a.y_row_stride, init += init_stride) {
    int64_t e = a.program.begin[r];
    const int64_t end = a.program.end[r];
    PrefetchRow<S>(a, r + 1);
    V acc[U][N];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) acc[0][i] = Load<Sum<S>, P::kLanes>(init + i * P::kLanes);
#pragma GCC unroll 16
    for (int u = 1; u < U; ++u)
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i) acc[u][i] = V{};
    if (!stream && sums == nullptr) {  // get ownership of the lines to be written while the row is computed
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) __builtin_prefetch(y + q * a.y_vec_stride, 1);
    }
    // Entries `at` to `at + E`.
    const auto add = [&]<int E>(int64_t at, V* to) SPARSEJAX_LAMBDA {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) {
        typename P::Elements x[E];
#pragma GCC unroll 2
        for (int i = 0; i < E; ++i) {
          x[i] = P::Read(a.x + offset[at + i] * scale + q * W);
          if (P::kEntries > 1) InRegister(x[i]);
        }
        P::template AddProducts<E>(a.data + at, x, to + q * K);
      }
    };
    for (; e + U * P::kEntries <= end; e += U * P::kEntries) {
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) add.template operator()<P::kEntries>(e + u * P::kEntries, acc[u]);
    }
    for (; e + P::kEntries <= end && U > 1; e += P::kEntries) add.template operator()<P::kEntries>(e, acc[0]);
    if (P::kEntries > 1 && e < end) add.template operator()<1>(e, acc[0]);
    if constexpr (U > 1) {
#pragma GCC unroll 16
      for (int half = U / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int u = 0; u < half; ++u)
#pragma GCC unroll 16
          for (int i = 0; i < N; ++i) acc[u][i] += acc[u + half][i];
    }
    WriteRow<S, W, Q>(a, acc[0], y, sums, stream);
    if (sums != nullptr) sums += Q * W;
  }
  if (stream) FenceLines();
}

// Entries per step, chosen such that at least kMinChains multiply-adds are independent: their latency times their
// throughput per cycle (4 cycles, 2 per cycle). `n`: accumulators.
constexpr int kMinChains = 8;
constexpr int EntriesPerStep(int n) { return n >= kMinChains ? 1 : n >= 4 ? 2 : n >= 2 ? 4 : 8; }

template <typename S, int W, int Q>
void SpmmDispatch(const SpmmArgs<S>& a) {
  if (a.vecs == Q) {
    SpmmTile<S, W, Q, EntriesPerStep(Q * Packed<S, W>::kParts)>(a);
  } else if constexpr (Q > 1) {
    SpmmDispatch<S, W, Q - 1>(a);
  }
}
