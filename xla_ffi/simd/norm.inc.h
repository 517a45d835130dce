// Batch norm, its ReLU and residual, and their gradient, over a contiguous part of one channel.
//
// z = (x - mean) * factor + bias [+ residual], y = z or max(z, 0); g = ct or, under ReLU, ct where z > 0 (else 0);
// dx = g * factor + (x - mean) * slope + offset. dx may lie where ct does, nothing else aliases. Full vectors first,
// then single elements; everything is computed in A, also where elements are stored in fewer bits.
//
// Forward and backward passes both depend on the sign of z. Both compute z with Affine, so that it has the same bits.
// Each sum has kSumVecs vectors of partial sums, added by halves at the end. Two sums make eight independent chains of
// additions, enough to hide their latency behind the loads. Callers limit n, which limits the rounding error.

constexpr int kSumVecs = 4;

template <int W>
struct Lanes {
  static constexpr int kCount = W;
};

// Calls body(Lanes<W>, i) for the elements i, ..., i + W - 1: full vectors first, then W = 1 for the rest.
template <typename A, typename Body>
SPARSEJAX_INLINE void ForEachVector(int64_t n, const Body& body) {
  constexpr int kFull = kVectorBytes / sizeof(A);
  int64_t i = 0;
  for (; i + kFull <= n; i += kFull) body(Lanes<kFull>{}, i);
  for (; i < n; ++i) body(Lanes<1>{}, i);
}

template <int W, typename A>
SPARSEJAX_INLINE Vec<A, W> Affine(const NormArgs<A>& p, Vec<A, W> centred) {
  return centred * p.factor + p.bias;
}

template <typename A, int W>
struct Two {
  Vec<A, W> first, second;
};

// The sums of both members of term(Lanes<W>, i) over i < n.
template <typename A, typename Term>
SPARSEJAX_INLINE Two<A, 1> SumTerms(int64_t n, const Term& term) {
  constexpr int kFull = kVectorBytes / sizeof(A), kStep = kFull * kSumVecs;
  Two<A, kFull> sum[kSumVecs] = {};
  Two<A, 1> rest = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep)
    for (int v = 0; v < kSumVecs; ++v) {
      const Two<A, kFull> t = term(Lanes<kFull>{}, i + v * kFull);
      sum[v].first += t.first;
      sum[v].second += t.second;
    }
  for (; i + kFull <= n; i += kFull) {
    const Two<A, kFull> t = term(Lanes<kFull>{}, i);
    sum[0].first += t.first;
    sum[0].second += t.second;
  }
  for (; i < n; ++i) {
    const Two<A, 1> t = term(Lanes<1>{}, i);
    rest.first += t.first;
    rest.second += t.second;
  }
  for (int half = kSumVecs / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) {
      sum[v].first += sum[v + half].first;
      sum[v].second += sum[v + half].second;
    }
  return {SumLanes<A>(sum[0].first) + rest.first, SumLanes<A>(sum[0].second) + rest.second};
}

template <typename S, typename A>
void Moments(const S* x, int64_t n, A* pivot, A* sum, A* square) {
  const A middle = SumRun<S, A>(x, n) / A(n);
  const Two<A, 1> total = SumTerms<A>(n, [&](auto lanes, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    const Vec<A, W> d = LoadWide<W>(x + i) - middle;
    return Two<A, W>{d, d * d};
  });
  *pivot = middle;
  *sum = total.first;
  *square = total.second;
}

template <typename S, typename A, bool kRelu, bool kResidual>
void NormalizeOf(const NormArgs<A>& args, const S* x, const S* residual, S* y, int64_t n) {
  const NormArgs<A> p = args;
  ForEachVector<A>(n, [&](auto lanes, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    Vec<A, W> z = Affine<W>(p, Vec<A, W>(LoadWide<W>(x + i) - p.mean));
    if constexpr (kResidual) z += LoadWide<W>(residual + i);
    const Vec<A, W> zero = {};
    if constexpr (kRelu) z = zero > z ? zero : z;  // NaN remains NaN
    StoreNarrow<W>(y + i, z);
  });
}

template <typename S, typename A>
void Normalize(const NormArgs<A>& p, const S* x, const S* residual, S* y, int64_t n) {
  if (residual != nullptr) {
    p.relu ? NormalizeOf<S, A, true, true>(p, x, residual, y, n) : NormalizeOf<S, A, false, true>(p, x, residual, y, n);
  } else {
    p.relu ? NormalizeOf<S, A, true, false>(p, x, x, y, n) : NormalizeOf<S, A, false, false>(p, x, x, y, n);
  }
}

// What the derivative of the activation is computed from: there is no activation, z computed from x again, or y.
enum class Gate { kOpen, kInput, kOutput };

// g for W elements: the cotangent where the derivative is 1, else 0.
template <Gate kGate, int W, typename S, typename A>
SPARSEJAX_INLINE Vec<A, W> Passed(const NormArgs<A>& p, const S* ct, Vec<A, W> centred, const S* y) {
  const Vec<A, W> g = LoadWide<W>(ct), zero = {};
  if constexpr (kGate == Gate::kInput) return Affine<W>(p, centred) > zero ? g : zero;
  if constexpr (kGate == Gate::kOutput) return Vec<A, W>(LoadWide<W>(y)) > zero ? g : zero;
  return g;
}

template <Gate kGate, typename S, typename A>
SPARSEJAX_INLINE Two<A, 1> NormGradSumsOf(const NormArgs<A>& p, const S* ct, const S* x, const S* y, S* out,
                                          int64_t n) {
  return SumTerms<A>(n, [=](auto lanes, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    const Vec<A, W> centred = LoadWide<W>(x + i) - p.mean;
    const Vec<A, W> g = Passed<kGate, W>(p, ct + i, centred, y + i);
    if constexpr (kGate == Gate::kOutput) StoreNarrow<W>(out + i, g);
    return Two<A, W>{g, g * centred};
  });
}

template <typename S, typename A>
void NormGradSums(const NormArgs<A>& p, const S* ct, const S* x, const S* y, S* g, int64_t n, A* sum, A* along) {
  const Two<A, 1> total = !p.relu        ? NormGradSumsOf<Gate::kOpen>(p, ct, x, y, g, n)
                          : y == nullptr ? NormGradSumsOf<Gate::kInput>(p, ct, x, y, g, n)
                                         : NormGradSumsOf<Gate::kOutput>(p, ct, x, y, g, n);
  *sum = total.first;
  *along = total.second;
}

template <Gate kGate, typename S, typename A>
SPARSEJAX_INLINE void NormGradOf(const NormGradArgs<A>& args, const S* ct, const S* x, S* dx, int64_t n) {
  const NormGradArgs<A> p = args;
  ForEachVector<A>(n, [&](auto lanes, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    const Vec<A, W> centred = LoadWide<W>(x + i) - p.norm.mean;
    const Vec<A, W> g = Passed<kGate, W>(p.norm, ct + i, centred, x);
    StoreNarrow<W>(dx + i, Vec<A, W>(g * p.norm.factor + (centred * p.slope + p.offset)));
  });
}

template <typename S, typename A>
void NormGrad(const NormGradArgs<A>& p, const S* ct, const S* x, S* dx, int64_t n) {
  p.norm.relu ? NormGradOf<Gate::kInput>(p, ct, x, dx, n) : NormGradOf<Gate::kOpen>(p, ct, x, dx, n);
}
