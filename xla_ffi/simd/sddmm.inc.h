// dw[e] += sum over v in the tile of y[r][v] * x[offset[e] + v], for every entry e of rows [row_begin, row_end).
//
// Layout: x is packed as for spmm; y has two strides, and its lanes from `last_lanes` on are zero; no other task writes
// to dw. Loops: rows, then entries, four at a time. The tile of y stays in registers during a row, so an entry costs
// one fused multiply-add per part of a vector. The four entries are independent chains, and their lanes are summed
// together. Order of the sums: fixed per instruction set. Source: Nikdan et al. 2023 (SparseProp), section 3: the
// weight gradient is a product sampled at the entries.

// The products of U entries with the tile, without the sum over lanes. `last`: the counted lanes of the last vector.
template <typename S, int W, int Q, int U, bool kFull>
SPARSEJAX_INLINE void Products(const S* const* x, const typename Packed<S, W>::Factor* y,
                               typename Packed<S, W>::Bits last, typename Packed<S, W>::V* sum) {
  using P = Packed<S, W>;
#pragma GCC unroll 16
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      auto v = P::Read(x[u] + q * W);
      if (!kFull && q == Q - 1) v = P::Masked(v, last);
      P::AddDot(y + q * P::kFactors, v, q == 0, sum[u]);
    }
}

template <typename S, int W, int Q, bool kFull>
void SddmmTile(const SddmmArgs<S>& args) {
  using P = Packed<S, W>;
  using V = typename P::V;
  const SddmmArgs<S> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const RowProgram& p = a.program;
  const auto last = P::Mask(a.last_lanes);
  for (int64_t r = a.row_begin; r < a.row_end; ++r) {
    int64_t e = p.begin[r];
    const int64_t end = p.end[r];
    if (e == end) continue;
    const S* row = a.y + (r - a.row_begin) * a.y_row_stride;
    typename P::Factor y[Q * P::kFactors];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
      P::ToFactor(P::Read(row + q * a.y_vec_stride), y + q * P::kFactors);
      __builtin_prefetch(row + kRowsAhead * a.y_row_stride + q * a.y_vec_stride);
    }
    for (; e + 4 <= end; e += 4) {
      const S* x[4];
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) x[u] = a.x + p.offset[e + u] * p.offset_scale;
      V sum[4];
      Products<S, W, Q, 4, kFull>(x, y, last, sum);
      const Vec<Sum<S>, 4> sums = SumLanes4<Sum<S>>(sum[0], sum[1], sum[2], sum[3]);
      Store<Sum<S>, 4>(a.dw + e, Load<Sum<S>, 4>(a.dw + e) + sums);
    }
    for (; e < end; ++e) {
      const S* x = a.x + p.offset[e] * p.offset_scale;
      V sum;
      Products<S, W, Q, 1, kFull>(&x, y, last, &sum);
      a.dw[e] += SumLanes<Sum<S>>(sum);
    }
  }
}

template <typename S, int W, int Q>
void SddmmDispatch(const SddmmArgs<S>& a) {
  if (a.vecs == Q) {
    const bool full = a.last_lanes == W || W == 1;
    full ? SddmmTile<S, W, Q, true>(a) : SddmmTile<S, W, Q, W == 1>(a);
  } else if constexpr (Q > 1) {
    SddmmDispatch<S, W, Q - 1>(a);
  }
}
