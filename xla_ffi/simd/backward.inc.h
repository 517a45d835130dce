// Both gradients of a product in one pass over the cotangent: of its input, y[r][v] = sum over entries e of row r of
// data[e] * x[offset[e] + v], and of its values, dw[e] += sum over v of tile[r][v] * x[offset[e] + v].
//
// Layout: x is the packed cotangent, as for spmm; `tile`, the product's input, and y have two strides each. Rows are
// inputs: the program is that of the transposed pattern. Loops: rows, then entries, four at a time. The sums of y stay
// in registers during a row; a row of `tile` does too, or stays in the first-level cache where there are few registers.
// Each vector of x, which is read from the second-level cache, is used in two fused multiply-adds, so this takes little
// longer than either gradient alone. Order of the sums: fixed per instruction set. Source: Nikdan et al. 2023
// (SparseProp), section 3: one backward pass computes both.

// Makes the compiler load a vector into a register once, instead of reading it from memory in each instruction.
template <typename V>
SPARSEJAX_INLINE void InRegister([[maybe_unused]] V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
}

// For U entries: adds their products with the values to y, and computes their products with the tile, without the sum
// over lanes.
template <typename T, int W, int Q, int U, bool kFull>
SPARSEJAX_INLINE void BothProducts(const BackwardArgs<T>& a, const Vec<T, W>* tile, int64_t e,
                                   const LaneMask<T, W>& last, Vec<T, W>* y, Vec<T, W>* sum) {
  const T* x[U];
  T w[U];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u) {
    x[u] = a.x + a.program.offset[e + u] * a.program.offset_scale;
    w[u] = a.data[e + u];
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      Vec<T, W> v = Load<T, W>(x[u] + q * W);
      InRegister(v);
      y[q] += w[u] * v;
      const Vec<T, W> counted = !kFull && q == Q - 1 ? last.Keep(v) : v;
      sum[u] = q == 0 ? tile[q] * counted : sum[u] + tile[q] * counted;
    }
  }
}

template <typename T, int W, int Q, bool kFull>
void BackwardTile(const BackwardArgs<T>& args) {
  using V = Vec<T, W>;
  const BackwardArgs<T> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const LaneMask<T, W> last(a.last_lanes);
  const T* init = a.init != nullptr ? a.init : Zeros<T, Q * W>::values;
  const int64_t init_stride = a.init != nullptr ? Q * W : 0;
  const bool stream = a.stream && AreLines<T, W>(a.y, a.y_row_stride, a.y_vec_stride);
  for (int64_t r = 0; r < a.row_end - a.row_begin; ++r) {
    int64_t e = a.program.begin[a.row_begin + r];
    const int64_t end = a.program.end[a.row_begin + r];
    const T* row = a.tile + r * a.tile_row_stride;
    T* y = a.y + r * a.y_row_stride;
    PrefetchRow<T>(a, a.row_begin + r + 1);
    V acc[Q], tile[Q];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
      tile[q] = Load<T, W>(row + q * a.tile_vec_stride);
      acc[q] = Load<T, W>(init + r * init_stride + q * W);
      __builtin_prefetch(row + kRowsAhead * a.tile_row_stride + q * a.tile_vec_stride);
      if (!stream) __builtin_prefetch(y + kRowsAhead * a.y_row_stride + q * a.y_vec_stride, 1);
    }
    for (; e + 4 <= end; e += 4) {
      V sum[4];
      BothProducts<T, W, Q, 4, kFull>(a, tile, e, last, acc, sum);
      Store<T, 4>(a.dw + e, Load<T, 4>(a.dw + e) + SumLanes4<T>(sum[0], sum[1], sum[2], sum[3]));
    }
    for (; e < end; ++e) {
      V sum;
      BothProducts<T, W, Q, 1, kFull>(a, tile, e, last, acc, &sum);
      a.dw[e] += SumLanes<T>(sum);
    }
    if (stream) {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) StoreLine<T, W>(y + q * a.y_vec_stride, acc[q]);
    } else {
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) Store<T, W>(y + q * a.y_vec_stride, acc[q]);
    }
  }
  if (stream) FenceLines();
}

template <typename T, int W, int Q>
void BackwardDispatch(const BackwardArgs<T>& a) {
  if (a.vecs == Q) {
    const bool full = a.last_lanes == W || W == 1;
    full ? BackwardTile<T, W, Q, true>(a) : BackwardTile<T, W, Q, W == 1>(a);
  } else if constexpr (Q > 1) {
    BackwardDispatch<T, W, Q - 1>(a);
  }
}
