// Both gradients of a product in one pass over the cotangent: of its input, y[r][v] = sum over entries e of row r of
// data[e] * x[offset[e] + v], and of its values, dw[e] += sum over v of tile[r][v] * x[offset[e] + v].
//
// Layout: x is the packed cotangent, as for spmm; `tile`, the product's input, and y have two strides each. Rows are
// inputs: the program is that of the transposed pattern. Loops: rows, then entries, four at a time. The sums of y stay
// in registers during a row; a row of `tile` does too, or stays in the first-level cache where there are few registers.
// Each vector of x, which is read from the second-level cache, is used in two fused multiply-adds, so this takes little
// longer than either gradient alone. Order of the sums: fixed per instruction set. Source: Nikdan et al. 2023
// (SparseProp), section 3: one backward pass computes both.

// For U entries: adds their products with the values to y, and computes their products with the tile, without the sum
// over lanes. `last`: the counted lanes of the last vector.
template <typename S, int W, int Q, int U, bool kFull>
SPARSEJAX_INLINE void BothProducts(const BackwardArgs<S>& a, const typename Packed<S, W>::Factor* tile, int64_t e,
                                   typename Packed<S, W>::Bits last, typename Packed<S, W>::V* y,
                                   typename Packed<S, W>::V* sum) {
  using P = Packed<S, W>;
  constexpr int E = U < P::kEntries ? U : P::kEntries;
  const S* x[U];
#pragma GCC unroll 4
  for (int u = 0; u < U; ++u) x[u] = a.x + a.program.offset[e + u] * a.program.offset_scale;
#pragma GCC unroll 16
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int u = 0; u < U; u += E) {
      typename P::Elements v[E];
#pragma GCC unroll 2
      for (int i = 0; i < E; ++i) {
        v[i] = P::Read(x[u + i] + q * W);
        InRegister(v[i]);
      }
      P::template AddProducts<E>(a.data + e + u, v, y + q * P::kParts);
#pragma GCC unroll 2
      for (int i = 0; i < E; ++i) {
        const auto counted = !kFull && q == Q - 1 ? P::Masked(v[i], last) : v[i];
        P::AddDot(tile + q * P::kFactors, counted, q == 0, sum[u + i]);
      }
    }
  }
}

template <typename S, int W, int Q, bool kFull>
void BackwardTile(const BackwardArgs<S>& args) {
  using P = Packed<S, W>;
  using V = typename P::V;
  constexpr int N = Q * P::kParts;
  const BackwardArgs<S> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const auto last = P::Mask(a.last_lanes);
  const Sum<S>* init = a.init != nullptr ? a.init : Zeros<Sum<S>, Q * W>::values;
  const int64_t init_stride = a.init != nullptr ? Q * W : 0;
  const bool stream = a.stream && AreLines<S, W>(a.y, a.y_row_stride, a.y_vec_stride);
  for (int64_t r = 0; r < a.row_end - a.row_begin; ++r) {
    int64_t e = a.program.begin[a.row_begin + r];
    const int64_t end = a.program.end[a.row_begin + r];
    const S* row = a.tile + r * a.tile_row_stride;
    S* y = a.y + r * a.y_row_stride;
    PrefetchRow<S>(a, a.row_begin + r + 1);
    V acc[N];
    typename P::Factor tile[Q * P::kFactors];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) acc[i] = Load<Sum<S>, P::kLanes>(init + r * init_stride + i * P::kLanes);
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
      P::ToFactor(P::Read(row + q * a.tile_vec_stride), tile + q * P::kFactors);
      __builtin_prefetch(row + kRowsAhead * a.tile_row_stride + q * a.tile_vec_stride);
      if (!stream && a.sums == nullptr) __builtin_prefetch(y + kRowsAhead * a.y_row_stride + q * a.y_vec_stride, 1);
    }
    for (; e + 4 <= end; e += 4) {
      V sum[4];
      BothProducts<S, W, Q, 4, kFull>(a, tile, e, last, acc, sum);
      const Vec<Sum<S>, 4> sums = SumLanes4<Sum<S>>(sum[0], sum[1], sum[2], sum[3]);
      Store<Sum<S>, 4>(a.dw + e, Load<Sum<S>, 4>(a.dw + e) + sums);
    }
    for (; e < end; ++e) {
      V sum;
      BothProducts<S, W, Q, 1, kFull>(a, tile, e, last, acc, &sum);
      a.dw[e] += SumLanes<Sum<S>>(sum);
    }
    WriteRow<S, W, Q>(a, acc, y, a.sums == nullptr ? nullptr : a.sums + r * Q * W, stream);
  }
  if (stream) FenceLines();
}

template <typename S, int W, int Q>
void BackwardDispatch(const BackwardArgs<S>& a) {
  if (a.vecs == Q) {
    const bool full = a.last_lanes == W || W == 1;
    full ? BackwardTile<S, W, Q, true>(a) : BackwardTile<S, W, Q, W == 1>(a);
  } else if constexpr (Q > 1) {
    BackwardDispatch<S, W, Q - 1>(a);
  }
}
