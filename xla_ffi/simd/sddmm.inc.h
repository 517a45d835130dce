// dw[e] += sum over v in the tile of y[r][v] * x[offset[e] + v], for every entry e of rows [row_begin, row_end).
//
// Layout: x packed as for spmm; y read at two strides, its lanes above `last_lanes` are zero; dw is private to the
// caller. Loops: rows, then entries; the tile of y stays in registers over a row, each entry is Q fused multiply-adds
// in two or more chains and one horizontal sum. Order: fixed per instruction set.
// Source: Nikdan et al. 2023 (SparseProp), section 3: the weight gradient is a product sampled at the entries.

template <typename T, int W, int Q, bool kHasId, bool kFull>
void SddmmTile(const SddmmArgs<T>& a) {
  using V = Vec<T, W>;
  constexpr int kChains = Q >= 4 ? 4 : Q;
  const RowProgram& p = a.program;
  const LaneMask<T, W> first(a.last_lanes);
  for (int64_t r = a.row_begin; r < a.row_end; ++r) {
    const int64_t begin = p.row_ptr[r], end = p.row_ptr[r + 1];
    if (begin == end) continue;
    const T* row = a.y + (r - a.row_begin) * a.y_row_stride;
    V y[Q];
#pragma GCC unroll 16
    for (int q = 0; q < Q; ++q) y[q] = Load<T, W>(row + q * a.y_vec_stride);
    for (int64_t e = begin; e < end; ++e) {
      const T* x = a.x + p.offset[e] * p.offset_scale;
      V sum[kChains];
#pragma GCC unroll 16
      for (int q = 0; q < Q; ++q) {
        V v = Load<T, W>(x + q * W);
        if (!kFull && q == Q - 1) v = first.Keep(v);
        sum[q % kChains] = q < kChains ? y[q] * v : sum[q % kChains] + y[q] * v;
      }
#pragma GCC unroll 16
      for (int half = kChains / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
      if constexpr (kChains == 3) sum[0] += sum[2];
      a.dw[kHasId ? p.id[e] : e] += SumLanes<T>(sum[0]);
    }
  }
}

template <typename T, int W, int Q>
void SddmmDispatch(const SddmmArgs<T>& a) {
  if (a.vecs == Q) {
    const bool full = a.last_lanes == W || W == 1;
    if (a.program.id != nullptr) {
      full ? SddmmTile<T, W, Q, true, true>(a) : SddmmTile<T, W, Q, true, W == 1>(a);
    } else {
      full ? SddmmTile<T, W, Q, false, true>(a) : SddmmTile<T, W, Q, false, W == 1>(a);
    }
  } else if constexpr (Q > 1) {
    SddmmDispatch<T, W, Q - 1>(a);
  }
}
