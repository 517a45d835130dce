// y[r][b] = sum over entries e of row r: data[e] * x[indices[e]][b], for the `lanes` examples b of a small batch,
// padded to a power of two up to 16.
//
// Values and indices are read once, in order, and prefetched; every index is checked where it is used. The sum of a row
// has a fixed order, which depends on the pattern and on the instruction set. Entries of a row that fill no vector are
// read as the last lanes of the vector that ends where the row does. Its other lanes belong to rows before; their
// weights and inputs are set to zero, so no infinity or NaN of them enters the sum. Source: Nikdan et al. 2023
// (SparseProp), section 3, for lanes along the batch; the gathers along a row are the classical product of compressed
// sparse rows.

// How far ahead values and indices are prefetched. Measured: any distance from 1 to 4 KiB.
constexpr int kBytesAhead = 2048;

SPARSEJAX_INLINE void PrefetchEntries(const void* values, const void* indices) {
  __builtin_prefetch(static_cast<const char*>(values) + kBytesAhead);
  __builtin_prefetch(static_cast<const char*>(indices) + kBytesAhead);
}

// Whether the sign bit of any lane is set.
template <int N>
SPARSEJAX_INLINE bool AnySign(Vec<uint32_t, N> v) {
#if defined(__x86_64__)
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_movepi32_mask((__m512i)v) != 0;
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) return _mm256_movemask_ps((__m256)v) != 0;
#endif
  if constexpr (N == 4) return _mm_movemask_ps((__m128)v) != 0;
#endif
  uint32_t any = 0;
  for (int i = 0; i < N; ++i) any |= v[i];
  return any >> 31 != 0;
}

// Whether any of N indices is not in [0, last], as in AllBelow.
template <int N>
SPARSEJAX_INLINE bool AnyOutside(Vec<int32_t, N> indices, uint32_t last) {
  const auto v = (Vec<uint32_t, N>)indices;
  return AnySign<N>(v | (last - v));
}

// Lanes along the batch: one broadcast and one multiply-add per entry, into kSums independent sums.
template <typename S, int W>
bool BroadcastRows(const SmallBatchArgs<S>& args) {
  using A = Sum<S>;
  using V = Vec<A, W>;
  constexpr int kSums = 4;
  const SmallBatchArgs<S> a = args;
  const uint32_t last = static_cast<uint32_t>(a.features) - 1;
  for (int64_t r = a.row_begin; r < a.row_end; ++r) {
    int64_t e = a.row_ptr[r];
    const int64_t end = a.row_ptr[r + 1];
    V sum[kSums];
#pragma GCC unroll 4
    for (int i = 0; i < kSums; ++i) sum[i] = V{};
    const auto add = [&](const A* w) {
#pragma GCC unroll 4
      for (int i = 0; i < kSums; ++i) sum[i] += w[i] * Load<A, W>(a.x + static_cast<int64_t>(a.indices[e + i]) * W);
      e += kSums;
    };
    for (; e + 2 * kSums <= end;) {
      PrefetchEntries(a.data + e, a.indices + e);
      if (AnyOutside<2 * kSums>(Load<int32_t, 2 * kSums>(a.indices + e), last)) return false;
      if constexpr (sizeof(S) == sizeof(A)) {
        add(a.data + e);
        add(a.data + e);
      } else {
        A w[2 * kSums];
        Store<A, 2 * kSums>(w, LoadWide<2 * kSums>(a.data + e));
        add(w);
        add(w + kSums);
      }
    }
    for (; e < end; ++e) {
      if (static_cast<uint32_t>(a.indices[e]) > last) return false;
      sum[0] += Widen(a.data[e]) * Load<A, W>(a.x + static_cast<int64_t>(a.indices[e]) * W);
    }
    StoreNarrow<W>(a.y + (r - a.row_begin) * W, (sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  return true;
}

#if defined(__AVX2__)

// x[at[i]] for all lanes. The forms with a mask begin with zeros; GCC warns that the others begin with anything.
#if defined(__AVX512F__)
SPARSEJAX_INLINE Vec<float, 16> Gather(const float* x, Vec<int32_t, 16> at) {
  return (Vec<float, 16>)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, (__m512i)at, x, 4);
}
SPARSEJAX_INLINE Vec<double, 8> Gather(const double* x, Vec<int32_t, 8> at) {
  return (Vec<double, 8>)_mm512_mask_i32gather_pd(_mm512_setzero_pd(), 0xff, (__m256i)at, x, 8);
}
#else
SPARSEJAX_INLINE Vec<float, 8> Gather(const float* x, Vec<int32_t, 8> at) {
  const __m256 all = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
  return (Vec<float, 8>)_mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, (__m256i)at, all, 4);
}
SPARSEJAX_INLINE Vec<double, 4> Gather(const double* x, Vec<int32_t, 4> at) {
  const __m256d all = _mm256_castsi256_pd(_mm256_set1_epi32(-1));
  return (Vec<double, 4>)_mm256_mask_i32gather_pd(_mm256_setzero_pd(), x, (__m128i)at, all, 8);
}
#endif

// Every number once, or twice where W is twice its lanes.
template <typename A, int W>
SPARSEJAX_INLINE Vec<A, W> Repeat(Vec<A, W> v) {
  return v;
}
template <typename A, int W>
SPARSEJAX_INLINE Vec<A, W> Repeat(Vec<A, W / 2> v) {
  if constexpr (W == 16) {
    return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  } else if constexpr (W == 4) {
    return __builtin_shufflevector(v, v, 0, 0, 1, 1);
  } else {
    return __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3);
  }
}

// The sums of the lanes of each of B interleaved examples.
template <typename A, int B, typename V>
SPARSEJAX_INLINE Vec<A, B> SumExamples(V v) {
  if constexpr (B == 1) {
    return SumLanes<A>(v);
  } else if constexpr (sizeof(V) == 4 * sizeof(A)) {
    return __builtin_shufflevector(v, v, 0, 1) + __builtin_shufflevector(v, v, 2, 3);
  } else {
    return SumExamples<A, B>(AddHalves<A>(v));
  }
}

// W ones after W zeros: what is read from element n on has ones in its last n lanes.
template <typename Int, int W>
struct LastLanes {
  Int bits[2 * W];
  constexpr LastLanes() : bits{} {
    for (int i = W; i < 2 * W; ++i) bits[i] = Int(-1);
  }
};

// What is gathered per entry: the two floats of a batch of two as one double.
template <typename A, int B>
struct Gathered {
  using type = double;
};
template <typename A>
struct Gathered<A, 1> {
  using type = A;
};

// Lanes along the entries of a row.
template <typename S, int B>
bool GatherRows(const SmallBatchArgs<S>& args) {
  using A = Sum<S>;
  using E = typename Gathered<A, B>::type;
  using Int = typename IntOf<sizeof(E)>::type;
  constexpr int N = kVectorBytes / sizeof(E), W = N * B;
  using V = Vec<A, W>;
  using Bits = Vec<Int, N>;
  static constexpr LastLanes<Int, N> kLastLanes;
  const SmallBatchArgs<S> a = args;
  const E* x = reinterpret_cast<const E*>(a.x);
  const uint32_t last = static_cast<uint32_t>(a.features) - 1;
  for (int64_t r = a.row_begin; r < a.row_end; ++r) {
    int64_t e = a.row_ptr[r];
    const int64_t end = a.row_ptr[r + 1];
    V even{}, odd{};
    for (; e + 2 * N <= end; e += 2 * N) {
      PrefetchEntries(a.data + e, a.indices + e);
      PrefetchEntries(a.data + e + N, a.indices + e + N);
      const auto i = Load<int32_t, N>(a.indices + e), j = Load<int32_t, N>(a.indices + e + N);
      if (AnyOutside<N>(i, last) || AnyOutside<N>(j, last)) return false;
      even += Repeat<A, W>(LoadWide<N>(a.data + e)) * (V)Gather(x, i);
      odd += Repeat<A, W>(LoadWide<N>(a.data + e + N)) * (V)Gather(x, j);
    }
    PrefetchEntries(a.data + e, a.indices + e);
    if (e + N <= end) {
      const auto i = Load<int32_t, N>(a.indices + e);
      if (AnyOutside<N>(i, last)) return false;
      even += Repeat<A, W>(LoadWide<N>(a.data + e)) * (V)Gather(x, i);
      e += N;
    }
    if (e < end && end >= N) {
      const auto i = Load<int32_t, N>(a.indices + end - N);
      if (AnyOutside<N>(i, last)) return false;
      const Bits keep = Load<Int, N>(kLastLanes.bits + (end - e));
      odd += (V)((Bits)Repeat<A, W>(LoadWide<N>(a.data + end - N)) & keep) * (V)((Bits)Gather(x, i) & keep);
      e = end;
    }
    Vec<A, B> sum = SumExamples<A, B>(even + odd);
    for (; e < end; ++e) {  // the first entries of the pattern
      if (static_cast<uint32_t>(a.indices[e]) > last) return false;
      sum += Widen(a.data[e]) * Load<A, B>(a.x + static_cast<int64_t>(a.indices[e]) * B);
    }
    StoreNarrow<B>(a.y + (r - a.row_begin) * B, sum);
  }
  return true;
}

// Two indices, read at a time, because loads are the limit.
SPARSEJAX_INLINE uint64_t ReadTwo(const int32_t* at) {
  uint64_t both;
  __builtin_memcpy(&both, at, sizeof(both));
  asm("" : "+r"(both));  // or the compiler reads each of them
  return both;
}

// x[at[i]] for all lanes of 16 bytes.
SPARSEJAX_INLINE Vec<double, 2> LoadEach(const double* x, const int32_t* at) {
  const uint64_t i = ReadTwo(at);
  return Vec<double, 2>{x[static_cast<uint32_t>(i)], x[i >> 32]};
}
SPARSEJAX_INLINE Vec<float, 4> LoadEach(const float* x, const int32_t* at) {
  const uint64_t i = ReadTwo(at), j = ReadTwo(at + 2);
  return Vec<float, 4>{x[static_cast<uint32_t>(i)], x[i >> 32], x[static_cast<uint32_t>(j)], x[j >> 32]};
}

// Lanes along the entries of a row, with a load for each input instead of gathers, which take 1.3 times as long on
// AMD's processors (Zen 4). Vectors have 16 bytes, which fit short rows, kSums of them at a time.
template <typename S, int B>
bool LoadRows(const SmallBatchArgs<S>& args) {
  using A = Sum<S>;
  using E = typename Gathered<A, B>::type;
  constexpr int N = 16 / sizeof(E), W = N * B, kSums = 4, kStep = kSums * N;
  using V = Vec<A, W>;
  // Not a copy of args, which GCC 12 aligns for AVX-512 where AddressSanitizer's stack is not aligned so far.
  const int32_t *row_ptr = args.row_ptr, *indices = args.indices;
  const S* data = args.data;
  const E* x = reinterpret_cast<const E*>(args.x);
  S* y = args.y;
  const int64_t row_end = args.row_end;
  const uint32_t last = static_cast<uint32_t>(args.features) - 1;
  const auto product = [&](int64_t e) SPARSEJAX_LAMBDA {
    return Repeat<A, W>(LoadWide<N>(data + e)) * (V)LoadEach(x, indices + e);
  };
  for (int64_t r = args.row_begin; r < row_end; ++r, y += B) {
    int64_t e = row_ptr[r];
    const int64_t end = row_ptr[r + 1];
    PrefetchEntries(data + e, indices + e);
    V sum[kSums]{};
    const auto add = [&](int64_t at) SPARSEJAX_LAMBDA {
      PrefetchEntries(data + at, indices + at);
      if (AnyOutside<kStep>(Load<int32_t, kStep>(indices + at), last)) return false;
#pragma GCC unroll 4
      for (int i = 0; i < kSums; ++i) sum[i] += product(at + i * N);
      return true;
    };
    for (; e + 2 * kStep <= end; e += 2 * kStep)
      if (!add(e) || !add(e + kStep)) return false;
    if (e + kStep <= end) {
      if (!add(e)) return false;
      e += kStep;
    }
    for (; e + N <= end; e += N) {
      if (AnyOutside<N>(Load<int32_t, N>(indices + e), last)) return false;
      sum[0] += product(e);
    }
    Vec<A, B> total = SumExamples<A, B>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; e < end; ++e) {
      if (static_cast<uint32_t>(indices[e]) > last) return false;
      total += Widen(data[e]) * Load<A, B>(reinterpret_cast<const A*>(x + indices[e]));
    }
    StoreNarrow<B>(y, total);
  }
  return true;
}
#endif  // defined(__AVX2__)

// The kernel for B examples; null where these are more than a vector. kLoads: the one for processors whose gathers are
// slow.
template <typename S, int B, bool kLoads = false>
constexpr auto SmallBatchKernel() -> bool (*)(const SmallBatchArgs<S>&) {
#if defined(__AVX2__)
  if constexpr (B == 1 || (B == 2 && sizeof(Sum<S>) == sizeof(float)))
    return kLoads ? LoadRows<S, B> : GatherRows<S, B>;
#endif
  if constexpr (B * sizeof(Sum<S>) <= kVectorBytes) return BroadcastRows<S, B>;
  return nullptr;
}
