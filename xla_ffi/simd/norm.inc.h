// Batch norm, its ReLU and residual, and their gradient, over a contiguous part of one channel or over rows in which
// all channels are contiguous.
//
// z = (x - mean) * factor + bias [+ residual], y = z or max(z, 0); g = ct or, under ReLU, ct where z > 0 (else 0);
// dx = g * factor + (x - mean) * slope + offset. dx may lie where ct does, nothing else aliases. Full vectors first,
// then smaller ones; everything is computed in A, also where elements are stored in fewer bits.
//
// Each formula is written once, for a vector of elements and their coefficients: one number that all elements of a
// channel share, or a number per channel. Forward and backward passes both depend on the sign of z. Both compute z with
// Affine, so that it has the same bits.
//
// The sums of a channel have kSumVecs vectors of partial sums, added by halves at the end. Two sums make eight
// independent chains of additions, enough to hide their latency behind the loads. Callers limit the number of elements
// and of rows, which limits the rounding error.

constexpr int kSumVecs = 4;

template <int W>
struct Lanes {
  static constexpr int kCount = W;
};

// Calls body(Lanes<W>, i) for the elements i, ..., i + W - 1: full vectors first, then halves, down to four lanes and
// one, because rows of few channels are mostly such a rest.
template <typename A, int W = kVectorBytes / sizeof(A), typename Body>
SPARSEJAX_INLINE void ForEachVector(int64_t n, const Body& body, int64_t i = 0) {
  for (; i + W <= n; i += W) body(Lanes<W>{}, i);
  if constexpr (W > 1) ForEachVector<A, (W >= 8 ? W / 2 : 1)>(n, body, i);
}

// The coefficients of W elements, the first of which belongs to channel c.
template <int W>
SPARSEJAX_INLINE Vec<float, W> At(float coefficient, int64_t) {
  return coefficient - Vec<float, W>{};
}
template <int W>
SPARSEJAX_INLINE Vec<double, W> At(double coefficient, int64_t) {
  return coefficient - Vec<double, W>{};
}
template <int W, typename A>
SPARSEJAX_INLINE Vec<A, W> At(const A* coefficients, int64_t c) {
  return Load<A, W>(coefficients + c);
}
template <int W, typename V>
SPARSEJAX_INLINE auto At(const NormArgs<V>& p, int64_t c) {
  auto mean = At<W>(p.mean, c);
  return NormArgs<decltype(mean)>{mean, At<W>(p.factor, c), At<W>(p.bias, c), p.relu};
}
template <int W, typename V>
SPARSEJAX_INLINE auto At(const NormGradArgs<V>& p, int64_t c) {
  auto slope = At<W>(p.slope, c);
  return NormGradArgs<decltype(slope)>{At<W>(p.norm, c), slope, At<W>(p.offset, c)};
}

// Calls body(Lanes<W>, coefficients, i) for all elements of a part of a channel.
template <typename A, typename P, typename Body>
SPARSEJAX_INLINE void ForEachElement(const P& args, int64_t n, const Body& body) {
  const P p = args;  // a copy, which no store of body can change
  ForEachVector<A>(n, [&](auto lanes, int64_t i) { body(lanes, At<decltype(lanes)::kCount>(p, 0), i); });
}
// The same for rows of n channels.
template <typename A, typename P, typename Body>
SPARSEJAX_INLINE void ForEachElement(const P& args, int64_t rows, int64_t n, const Body& body) {
  const P p = args;
  for (int64_t r = 0; r < rows; ++r)
    ForEachVector<A>(n, [&](auto lanes, int64_t c) { body(lanes, At<decltype(lanes)::kCount>(p, c), r * n + c); });
}

template <typename V>
SPARSEJAX_INLINE V Affine(const NormArgs<V>& p, V centred) {
  return centred * p.factor + p.bias;
}

template <typename V>
struct Two {
  V first, second;

  SPARSEJAX_INLINE void operator+=(const Two& other) {
    first += other.first;
    second += other.second;
  }
};

// The sums of both members of term(Lanes<W>, coefficients, i) over a part of a channel.
template <typename A, typename P, typename Term>
SPARSEJAX_INLINE void Add(const P& args, int64_t n, const Term& term, A* first, A* second) {
  constexpr int kFull = kVectorBytes / sizeof(A), kStep = kFull * kSumVecs;
  const P p = args;
  Two<Vec<A, kFull>> sum[kSumVecs] = {};
  Two<A> rest = {};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep)
    for (int v = 0; v < kSumVecs; ++v) sum[v] += term(Lanes<kFull>{}, At<kFull>(p, 0), i + v * kFull);
  for (; i + kFull <= n; i += kFull) sum[0] += term(Lanes<kFull>{}, At<kFull>(p, 0), i);
  for (; i < n; ++i) rest += term(Lanes<1>{}, At<1>(p, 0), i);
  for (int half = kSumVecs / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) sum[v] += sum[v + half];
  *first = SumLanes<A>(sum[0].first) + rest.first;
  *second = SumLanes<A>(sum[0].second) + rest.second;
}

// The same for rows of n channels, and for each channel its own sums over the rows. Four rows at a time, so that sums
// are read and written once for four elements.
template <typename A, typename P, typename Term>
SPARSEJAX_INLINE void Add(const P& args, int64_t rows, int64_t n, const Term& term, A* first, A* second) {
  const P p = args;
  const auto add = [&](auto count, int64_t r) {
    ForEachVector<A>(n, [&](auto lanes, int64_t c) {
      constexpr int W = decltype(lanes)::kCount;
      const auto coefficients = At<W>(p, c);
      Two<Vec<A, W>> total = {Load<A, W>(first + c), Load<A, W>(second + c)}, sum = {};
      for (int i = 0; i < decltype(count)::kCount; ++i) sum += term(lanes, coefficients, (r + i) * n + c);
      total += sum;
      Store<A, W>(first + c, total.first);
      Store<A, W>(second + c, total.second);
    });
  };
  for (int64_t c = 0; c < n; ++c) first[c] = second[c] = 0;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) add(Lanes<4>{}, r);
  for (; r < rows; ++r) add(Lanes<1>{}, r);
}

template <typename S>
struct MomentTerm {
  const S* x;

  template <typename L, typename V>
  SPARSEJAX_INLINE Two<V> operator()(L, V pivot, int64_t i) const {
    const V d = LoadWide<L::kCount>(x + i) - pivot;
    return {d, d * d};
  }
};

// The mean of n numbers with this sum; the first of them where that is the same but for rounding, so that the variance
// of a constant channel is 0 however large the constant.
template <typename A>
SPARSEJAX_INLINE A Pivot(A sum, int64_t n, A first) {
  const A mean = sum / A(n), off = mean > first ? mean - first : first - mean;
  const A near = A(sizeof(A) == 4 ? 0x1p-17 : 0x1p-46) * (first < 0 ? -first : first);
  return off <= near ? first : mean;
}

template <typename S, typename A>
void Moments(const S* x, A* pivot, A* sum, A* square, int64_t n) {
  *pivot = Pivot(SumRun<S, A>(x, n), n, Widen(x[0]));
  Add<A>(*pivot, n, MomentTerm<S>{x}, sum, square);
}

template <typename S, typename A>
void Moments(const S* x, A* pivot, A* sum, A* square, int64_t rows, int64_t n) {
  for (int64_t c = 0; c < n; ++c) pivot[c] = 0;
  AddRows<S, A>(x, nullptr, rows, n, n, pivot);
  for (int64_t c = 0; c < n; ++c) pivot[c] = Pivot(pivot[c], rows, Widen(x[c]));
  Add<A>(static_cast<const A*>(pivot), rows, n, MomentTerm<S>{x}, sum, square);
}

// Sizes... here and below: the number of elements of a part of a channel, or of rows and channels.
template <bool kRelu, bool kResidual, typename A, typename P, typename S, typename... Sizes>
SPARSEJAX_INLINE void NormalizeOf(const P& args, const S* x, const S* residual, S* y, Sizes... sizes) {
  ForEachElement<A>(args, sizes..., [=](auto lanes, const auto& p, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    Vec<A, W> z = Affine<Vec<A, W>>(p, LoadWide<W>(x + i) - p.mean);
    if constexpr (kResidual) z += LoadWide<W>(residual + i);
    const Vec<A, W> zero = {};
    if constexpr (kRelu) z = zero > z ? zero : z;  // NaN remains NaN
    StoreNarrow<W>(y + i, z);
  });
}

template <typename S, typename A, typename V, typename... Sizes>
void Normalize(const NormArgs<V>& p, const S* x, const S* residual, S* y, Sizes... sizes) {
  if (residual != nullptr) {
    p.relu ? NormalizeOf<true, true, A>(p, x, residual, y, sizes...)
           : NormalizeOf<false, true, A>(p, x, residual, y, sizes...);
  } else {
    p.relu ? NormalizeOf<true, false, A>(p, x, x, y, sizes...) : NormalizeOf<false, false, A>(p, x, x, y, sizes...);
  }
}

// What the derivative of the activation is computed from: there is no activation, z computed from x again, or y.
enum class Gate { kOpen, kInput, kOutput };

// g for W elements: the cotangent where the derivative is 1, else 0.
template <Gate kGate, int W, typename S, typename V>
SPARSEJAX_INLINE V Passed(const NormArgs<V>& p, const S* ct, V centred, const S* y) {
  const V g = LoadWide<W>(ct), zero = {};
  if constexpr (kGate == Gate::kInput) return Affine(p, centred) > zero ? g : zero;
  if constexpr (kGate == Gate::kOutput) return V(LoadWide<W>(y)) > zero ? g : zero;
  return g;
}

template <Gate kGate, typename P, typename S, typename A, typename... Sizes>
SPARSEJAX_INLINE void NormGradSumsOf(const P& args, const S* ct, const S* x, const S* y, S* out, A* sum, A* along,
                                     Sizes... sizes) {
  const auto term = [=](auto lanes, const auto& p, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    const Vec<A, W> centred = LoadWide<W>(x + i) - p.mean;
    const Vec<A, W> g = Passed<kGate, W>(p, ct + i, centred, y + i);
    if constexpr (kGate == Gate::kOutput) StoreNarrow<W>(out + i, g);
    return Two<Vec<A, W>>{g, g * centred};
  };
  Add<A>(args, sizes..., term, sum, along);
}

template <typename S, typename A, typename V, typename... Sizes>
void NormGradSums(const NormArgs<V>& p, const S* ct, const S* x, const S* y, S* g, A* sum, A* along, Sizes... sizes) {
  !p.relu        ? NormGradSumsOf<Gate::kOpen>(p, ct, x, y, g, sum, along, sizes...)
  : y == nullptr ? NormGradSumsOf<Gate::kInput>(p, ct, x, y, g, sum, along, sizes...)
                 : NormGradSumsOf<Gate::kOutput>(p, ct, x, y, g, sum, along, sizes...);
}

template <Gate kGate, typename A, typename P, typename S, typename... Sizes>
SPARSEJAX_INLINE void NormGradOf(const P& args, const S* ct, const S* x, S* dx, Sizes... sizes) {
  ForEachElement<A>(args, sizes..., [=](auto lanes, const auto& p, int64_t i) {
    constexpr int W = decltype(lanes)::kCount;
    const Vec<A, W> centred = LoadWide<W>(x + i) - p.norm.mean;
    const Vec<A, W> g = Passed<kGate, W>(p.norm, ct + i, centred, x);
    StoreNarrow<W>(dx + i, Vec<A, W>(g * p.norm.factor + (centred * p.slope + p.offset)));
  });
}

template <typename S, typename A, typename V, typename... Sizes>
void NormGrad(const NormGradArgs<V>& p, const S* ct, const S* x, S* dx, Sizes... sizes) {
  p.norm.relu ? NormGradOf<Gate::kInput, A>(p, ct, x, dx, sizes...)
              : NormGradOf<Gate::kOpen, A>(p, ct, x, dx, sizes...);
}
