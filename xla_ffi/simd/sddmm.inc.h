// dw[e] += sum over v in the tile of y[r][v] * x[offset[e] + v], for every entry e of rows [row_begin, row_end).
//
// Layout: x is packed as for spmm; y has two strides, and its lanes from `last_lanes` on are zero; no other task writes
// to dw. Loops: rows, then entries, four at a time. The tile of y stays in registers during a row, so an entry costs Q
// fused multiply-adds with a memory operand. The four entries are independent chains, and their lanes are summed
// together. Order of the sums: fixed per instruction set. Source: Nikdan et al. 2023 (SparseProp), section 3: the
// weight gradient is a product sampled at the entries.

// The products of U entries with the tile, without the sum over lanes.
template <typename T, int W, int Q, int U, bool kFull>
SPARSEJAX_INLINE void Products(const T* const* x, const Vec<T, W>* y, const LaneMask<T, W>& last, Vec<T, W>* sum) {
#pragma GCC unroll 16
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      Vec<T, W> v = Load<T, W>(x[u] + q * W);
      if (!kFull && q == Q - 1) v = last.Keep(v);
      sum[u] = q == 0 ? y[q] * v : sum[u] + y[q] * v;
    }
}

template <typename T, int W, int Q, bool kFull>
void SddmmTile(const SddmmArgs<T>& args) {
  using V = Vec<T, W>;
  const SddmmArgs<T> a = args;  // a copy, which the compiler knows not to be changed by the stores below
  const RowProgram& p = a.program;
  const LaneMask<T, W> last(a.last_lanes);
  for (int64_t r = a.row_begin; r < a.row_end; ++r) {
    int64_t e = p.begin[r];
    const int64_t end = p.end[r];
    if (e == end) continue;
    const T* row = a.y + (r - a.row_begin) * a.y_row_stride;
    V y[Q];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) {
      y[q] = Load<T, W>(row + q * a.y_vec_stride);
      __builtin_prefetch(row + kRowsAhead * a.y_row_stride + q * a.y_vec_stride);
    }
    for (; e + 4 <= end; e += 4) {
      const T* x[4];
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) x[u] = a.x + p.offset[e + u] * p.offset_scale;
      V sum[4];
      Products<T, W, Q, 4, kFull>(x, y, last, sum);
      const Vec<T, 4> sums = SumLanes4<T>(sum[0], sum[1], sum[2], sum[3]);
      Store<T, 4>(a.dw + e, Load<T, 4>(a.dw + e) + sums);
    }
    for (; e < end; ++e) {
      const T* x = a.x + p.offset[e] * p.offset_scale;
      V sum;
      Products<T, W, Q, 1, kFull>(&x, y, last, &sum);
      a.dw[e] += SumLanes<T>(sum);
    }
  }
}

template <typename T, int W, int Q>
void SddmmDispatch(const SddmmArgs<T>& a) {
  if (a.vecs == Q) {
    const bool full = a.last_lanes == W || W == 1;
    full ? SddmmTile<T, W, Q, true>(a) : SddmmTile<T, W, Q, W == 1>(a);
  } else if constexpr (Q > 1) {
    SddmmDispatch<T, W, Q - 1>(a);
  }
}
