// The products of spmm.inc.h and backward.inc.h for groups of R rows that have the same offsets, as patterns of blocks
// do: one vector of x, read once, is used for all rows of the group. So reading the second-level cache, which limits
// the other kernels, is divided by R.
//
// Rows row_begin to row_end are whole groups. Registers: R * Q * parts accumulators, which limits Q. In the pass of
// both gradients the rows of `tile` are read from a copy in the first-level cache, as operands in memory. Order of the
// sums: entry by entry; fixed per instruction set.

// Vectors in the largest tile.
template <typename S, int R>
constexpr int kSharedVecs = kMaxVecs / 4 * 4 / (R * Packed<S, kVectorBytes / sizeof(S)>::kParts);

template <typename S, int W, int Q, int R>
void SpmmSharedTile(const SpmmArgs<S>& args) {
  using P = Packed<S, W>;
  using V = typename P::V;
  constexpr int K = P::kParts, N = Q * K;
  const SpmmArgs<S> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const int32_t* offset = a.program.offset;
  const int64_t scale = a.program.offset_scale;
  const bool stream = a.stream && AreLines<S, W>(a.y, a.y_row_stride, a.y_vec_stride);
  for (int64_t r = 0; r < a.row_end - a.row_begin; r += R) {
    const int32_t* begin = a.program.begin + a.row_begin + r;
    const int64_t first = begin[0], n = a.program.end[a.row_begin + r] - first;
    PrefetchRow<S>(a, a.row_begin + r + R);
    const Sum<S>* data[R];
    V acc[R][N];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      data[i] = a.data + begin[i];
      const Sum<S>* init = a.init != nullptr ? a.init + (r + i) * Q * W : Zeros<Sum<S>, Q * W>::values;
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j) acc[i][j] = Load<Sum<S>, P::kLanes>(init + j * P::kLanes);
    }
    // Entries `at` to `at + E`.
    const auto add = [&]<int E>(int64_t at) SPARSEJAX_LAMBDA {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) {
        typename P::Elements x[E];
#pragma GCC unroll 2
        for (int j = 0; j < E; ++j) {
          x[j] = P::Read(a.x + offset[first + at + j] * scale + q * W);
          InRegister(x[j]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) P::template AddProducts<E>(data[i] + at, x, acc[i] + q * K);
      }
    };
    int64_t e = 0;
    for (; e + P::kEntries <= n; e += P::kEntries) add.template operator()<P::kEntries>(e);
    if (P::kEntries > 1 && e < n) add.template operator()<1>(e);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
      WriteRow<S, W, Q>(a, acc[i], a.y + (r + i) * a.y_row_stride,
                        a.sums == nullptr ? nullptr : a.sums + (r + i) * Q * W, stream);
  }
  if (stream) FenceLines();
}

// Adds the lane sums of U entries, R vectors each, to dw. R * U is 4.
template <typename A, int R, typename V>
SPARSEJAX_INLINE void AddSums(const V (&sum)[4 / R][R], A* const* dw, int64_t e) {
  if constexpr (R == 4) {
    const Vec<A, 4> sums = SumLanes4<A>(sum[0][0], sum[0][1], sum[0][2], sum[0][3]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) dw[i][e] += sums[i];
  } else {
    const Vec<A, 4> sums = SumLanes4<A>(sum[0][0], sum[0][1], sum[1][0], sum[1][1]);
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u)
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) dw[i][e + u] += sums[2 * u + i];
  }
}

// For U entries from `e` on: adds their products with the values to y, and computes their products with the tile.
template <typename S, int W, int Q, int R, int U, bool kFull>
SPARSEJAX_INLINE void SharedProducts(const BackwardArgs<S>& a, const int32_t* offset, const Sum<S>* const* data,
                                     const typename Packed<S, W>::Factor* tile, int64_t e,
                                     typename Packed<S, W>::Bits last,
                                     typename Packed<S, W>::V (&y)[R][Q * Packed<S, W>::kParts],
                                     typename Packed<S, W>::V (&sum)[U][R]) {
  using P = Packed<S, W>;
  constexpr int E = U < P::kEntries ? U : P::kEntries;
#pragma GCC unroll 2
  for (int u = 0; u < U; u += E) {
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
      typename P::Elements v[E];
#pragma GCC unroll 2
      for (int j = 0; j < E; ++j) {
        v[j] = P::Read(a.x + offset[e + u + j] * a.program.offset_scale + q * W);
        InRegister(v[j]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        P::template AddProducts<E>(data[i] + e + u, v, y[i] + q * P::kParts);
#pragma GCC unroll 2
        for (int j = 0; j < E; ++j) {
          const auto counted = !kFull && q == Q - 1 ? P::Masked(v[j], last) : v[j];
          P::AddDot(tile + (i * Q + q) * P::kFactors, counted, q == 0, sum[u + j][i]);
        }
      }
    }
  }
}

template <typename S, int W, int Q, int R, bool kFull>
void BackwardSharedTile(const BackwardArgs<S>& args) {
  using P = Packed<S, W>;
  using V = typename P::V;
  constexpr int N = Q * P::kParts, F = Q * P::kFactors, U = 4 / R;
  const BackwardArgs<S> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const auto last = P::Mask(a.last_lanes);
  const bool stream = a.stream && AreLines<S, W>(a.y, a.y_row_stride, a.y_vec_stride);
  typename P::Factor tile[R * F];
  for (int64_t r = 0; r < a.row_end - a.row_begin; r += R) {
    const int32_t* begin = a.program.begin + a.row_begin + r;
    const int32_t* offset = a.program.offset + begin[0];
    const int64_t n = a.program.end[a.row_begin + r] - begin[0];
    PrefetchRow<S>(a, a.row_begin + r + R);
    const Sum<S>* data[R];
    Sum<S>* dw[R];
    V acc[R][N];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      data[i] = a.data + begin[i], dw[i] = a.dw + begin[i];
      const Sum<S>* init = a.init != nullptr ? a.init + (r + i) * Q * W : Zeros<Sum<S>, Q * W>::values;
      const S* row = a.tile + (r + i) * a.tile_row_stride;
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j) acc[i][j] = Load<Sum<S>, P::kLanes>(init + j * P::kLanes);
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) {
        P::ToFactor(P::Read(row + q * a.tile_vec_stride), tile + i * F + q * P::kFactors);
        __builtin_prefetch(row + kRowsAhead * a.tile_row_stride + q * a.tile_vec_stride);
      }
    }
    const typename P::Factor* of_tile = tile;
    int64_t e = 0;
    for (; e + U <= n; e += U) {
      asm("" : "+r"(of_tile));  // keeps the tile in memory: there are no registers for it
      V sum[U][R];
      SharedProducts<S, W, Q, R, U, kFull>(a, offset, data, of_tile, e, last, acc, sum);
      AddSums<Sum<S>, R>(sum, dw, e);
    }
    for (; e < n; ++e) {
      V sum[1][R];
      SharedProducts<S, W, Q, R, 1, kFull>(a, offset, data, of_tile, e, last, acc, sum);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) dw[i][e] += SumLanes<Sum<S>>(sum[0][i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
      WriteRow<S, W, Q>(a, acc[i], a.y + (r + i) * a.y_row_stride,
                        a.sums == nullptr ? nullptr : a.sums + (r + i) * Q * W, stream);
  }
  if (stream) FenceLines();
}

template <typename S, int W, int R, int Q = kSharedVecs<S, R>>
void SpmmSharedDispatch(const SpmmArgs<S>& a) {
  if (a.vecs == Q) {
    SpmmSharedTile<S, W, Q, R>(a);
  } else if constexpr (Q > 1) {
    SpmmSharedDispatch<S, W, R, Q - 1>(a);
  }
}

template <typename S, int W, int R, int Q = kSharedVecs<S, R>>
void BackwardSharedDispatch(const BackwardArgs<S>& a) {
  if (a.vecs == Q) {
    a.last_lanes == W ? BackwardSharedTile<S, W, Q, R, true>(a) : BackwardSharedTile<S, W, Q, R, false>(a);
  } else if constexpr (Q > 1) {
    BackwardSharedDispatch<S, W, R, Q - 1>(a);
  }
}
