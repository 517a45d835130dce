// y[r][v] = sum over entries e of row r: data[e] * x[offset[e] + v], v in a tile of Q vectors of W lanes.
//
// Layout: x is packed, so the Q vectors of a tile are consecutive; y has two strides and is never read; `init` is
// packed; x and y do not alias. Loops: rows, then entries. The tile stays in registers during a row, so an entry costs
// one broadcast and Q fused multiply-adds with a memory operand. Registers: U * Q accumulators. Short tiles (small Q)
// are limited by latency, so they take U entries at a time. Tails: callers pack to full vectors. Order of the sums:
// entries in steps of U, partial sums added pairwise at the end of the row; fixed per instruction set. Source: Nikdan
// et al. 2023 (SparseProp), section 3, with the output tile in registers instead of memory.

// Prefetches the first entries of a row. Rows are short, so the processor's own prefetcher only follows after that.
template <typename T>
SPARSEJAX_INLINE void PrefetchRow(const SpmmArgs<T>& a, int64_t r) {
  if (r >= a.row_end) return;
  const int64_t e = a.program.begin[r];
#pragma GCC unroll 4
  for (int line = 0; line < 4; ++line) {
    __builtin_prefetch(a.program.offset + e + 16 * line);
    __builtin_prefetch(a.data + e + 64 / sizeof(T) * line);
  }
}

// The initial sums where `init` is null, so that the first pass takes the same path without a branch as the others.
template <typename T, int N>
struct Zeros {
  alignas(64) static constexpr T values[N] = {};
};

template <typename T, int W, int Q, int U>
void SpmmTile(const SpmmArgs<T>& args) {
  using V = Vec<T, W>;
  const SpmmArgs<T> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const int32_t* offset = a.program.offset;
  const int64_t scale = a.program.offset_scale;
  const T* init = a.init != nullptr ? a.init : Zeros<T, Q * W>::values;
  const int64_t init_stride = a.init != nullptr ? Q * W : 0;
  T* y = a.y;
  const bool stream = a.stream && AreLines<T, W>(y, a.y_row_stride, a.y_vec_stride);
  for (int64_t r = a.row_begin; r < a.row_end; ++r, y += a.y_row_stride, init += init_stride) {
    int64_t e = a.program.begin[r];
    const int64_t end = a.program.end[r];
    PrefetchRow<T>(a, r + 1);
    V acc[U][Q];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) acc[0][q] = Load<T, W>(init + q * W);
#pragma GCC unroll 16
    for (int u = 1; u < U; ++u)
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) acc[u][q] = V{};
    if (!stream) {  // get ownership of the lines to be written while the row is computed
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) __builtin_prefetch(y + q * a.y_vec_stride, 1);
    }
    for (; e + U <= end; e += U) {
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) {
        const T w = a.data[e + u];
        const T* x = a.x + offset[e + u] * scale;
#pragma GCC unroll 16
        for (int q = 0; q < Q; ++q) acc[u][q] += w * Load<T, W>(x + q * W);
      }
    }
    if constexpr (U > 1) {
      for (; e < end; ++e) {
        const T w = a.data[e];
        const T* x = a.x + offset[e] * scale;
#pragma GCC unroll 16
        for (int q = 0; q < Q; ++q) acc[0][q] += w * Load<T, W>(x + q * W);
      }
#pragma GCC unroll 16
      for (int half = U / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int u = 0; u < half; ++u)
#pragma GCC unroll 16
          for (int q = 0; q < Q; ++q) acc[u][q] += acc[u + half][q];
    }
    if (stream) {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) StoreLine<T, W>(y + q * a.y_vec_stride, acc[0][q]);
    } else {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) Store<T, W>(y + q * a.y_vec_stride, acc[0][q]);
    }
  }
  if (stream) FenceLines();
}

// Entries per step, chosen such that at least kMinChains multiply-adds are independent: their latency times their
// throughput per cycle (4 cycles, 2 per cycle).
constexpr int kMinChains = 8;
constexpr int EntriesPerStep(int q) { return q >= kMinChains ? 1 : q >= 4 ? 2 : q >= 2 ? 4 : 8; }

template <typename T, int W, int Q>
void SpmmDispatch(const SpmmArgs<T>& a) {
  if (a.vecs == Q) {
    SpmmTile<T, W, Q, EntriesPerStep(Q)>(a);
  } else if constexpr (Q > 1) {
    SpmmDispatch<T, W, Q - 1>(a);
  }
}
