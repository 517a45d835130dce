// Conversions between storage and accumulation types, and sums over a contiguous run of elements.
//
// bfloat16 is the upper half of a float: widening is a shift, narrowing rounds to nearest even and keeps NaN quiet.
// Sums have kSumLanes partial sums, added by halves at the end, so that the loop is vectorised without reassociation.
// Callers limit n (see handlers/channel.cc), which limits the rounding error of a partial sum.

SPARSEJAX_INLINE float Widen(float v) { return v; }
SPARSEJAX_INLINE double Widen(double v) { return v; }
SPARSEJAX_INLINE float Widen(bfloat16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof(out));
  return out;
}

SPARSEJAX_INLINE void Narrow(float v, float* out) { *out = v; }
SPARSEJAX_INLINE void Narrow(double v, double* out) { *out = v; }
SPARSEJAX_INLINE void Narrow(float v, bfloat16* out) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  out->bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

template <typename S, typename D>
SPARSEJAX_INLINE void Convert(S v, D* out) {
  if constexpr (sizeof(S) == sizeof(D)) {
    *out = v;
  } else if constexpr (sizeof(S) < sizeof(D)) {
    *out = Widen(v);
  } else {
    Narrow(v, out);
  }
}

// Unaligned loads that widen and stores that narrow, of W elements.
template <int W>
SPARSEJAX_INLINE Vec<float, W> LoadWide(const float* p) {
  return Load<float, W>(p);
}
template <int W>
SPARSEJAX_INLINE Vec<double, W> LoadWide(const double* p) {
  return Load<double, W>(p);
}
template <int W>
SPARSEJAX_INLINE Vec<float, W> LoadWide(const bfloat16* p) {
  if constexpr (W == 1) {
    return Widen(*p);
  } else {
    const auto bits = __builtin_convertvector(Load<uint16_t, W>(&p->bits), Vec<uint32_t, W>) << 16;
    return (Vec<float, W>)bits;
  }
}

template <typename D, int W>
SPARSEJAX_INLINE auto NarrowBits(Vec<float, W> v) {
  if constexpr (sizeof(D) == sizeof(float)) {
    return v;
  } else {
    const auto bits = (Vec<uint32_t, W>)v;
    const auto rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const auto narrow = v == v ? rounded : (bits >> 16) | 0x40u;  // a NaN stays one, quiet
    return __builtin_convertvector(narrow, Vec<uint16_t, W>);
  }
}
template <typename D, int W>
SPARSEJAX_INLINE Vec<double, W> NarrowBits(Vec<double, W> v) {
  return v;
}

template <int W>
SPARSEJAX_INLINE void StoreNarrow(float* p, Vec<float, W> v) {
  Store<float, W>(p, v);
}
template <int W>
SPARSEJAX_INLINE void StoreNarrow(double* p, Vec<double, W> v) {
  Store<double, W>(p, v);
}
template <int W>
SPARSEJAX_INLINE void StoreNarrow(bfloat16* p, Vec<float, W> v) {
  if constexpr (W == 1) {
    Narrow(v, p);
  } else {
    Store<uint16_t, W>(&p->bits, NarrowBits<bfloat16, W>(v));
  }
}

template <typename S, typename A>
void PackRows(const S* src, int64_t rows, int64_t src_stride, int64_t n, A* dst, int64_t dst_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const S* __restrict from = src + r * src_stride;
    A* __restrict to = dst + r * dst_stride;
    for (int64_t i = 0; i < n; i += 64 / sizeof(S)) __builtin_prefetch(from + kRowsAhead * src_stride + i);
    for (int64_t i = 0; i < n; ++i) Convert(from[i], &to[i]);
    for (int64_t i = n; i < dst_stride; ++i) to[i] = A{};
  }
}

// Copies at most a vector of bytes as two pieces, which overlap: in registers, where the compiler would call memcpy.
template <int kPiece = kVectorBytes / 2>
SPARSEJAX_INLINE void CopyFew(const char* from, int64_t bytes, char* to) {
  if constexpr (kPiece == 1) {
    if (bytes == 1) *to = *from;
  } else if (bytes >= kPiece) {
    char first[kPiece], last[kPiece];
    __builtin_memcpy(first, from, kPiece);
    __builtin_memcpy(last, from + bytes - kPiece, kPiece);
    __builtin_memcpy(to, first, kPiece);
    __builtin_memcpy(to + bytes - kPiece, last, kPiece);
  } else {
    CopyFew<kPiece / 2>(from, bytes, to);
  }
}

template <typename S>
SPARSEJAX_INLINE void CopyFew(const S* from, int64_t n, S* to) {
  CopyFew(reinterpret_cast<const char*>(from), n * static_cast<int64_t>(sizeof(S)), reinterpret_cast<char*>(to));
}

template <typename S, typename D>
void CopyRows(const S* src, int64_t rows, int64_t src_stride, int64_t n, D* dst, int64_t dst_stride) {
  constexpr int kFew = kVectorBytes / sizeof(S);
  for (int64_t r = 0; r < rows; ++r) {
    const S* __restrict from = src + r * src_stride;
    D* __restrict to = dst + r * dst_stride;
    if constexpr (sizeof(S) == sizeof(D)) {
      if (n <= kFew) {
        CopyFew(from, n, to);
        continue;
      }
    }
    for (int64_t i = 0; i < n; ++i) Convert(from[i], &to[i]);
  }
}

// kLanes > 0 is the common case of a full vector per pixel; with 0, `valid` and `lanes` are those of the arguments.
template <typename S, int kLanes>
void PackPixelsOf(const S* __restrict src, const int32_t* pixel, int64_t count, int64_t stride, int64_t valid,
                  int64_t lanes, int64_t ahead, S* __restrict dst) {
  if (kLanes > 0) valid = lanes = kLanes;
  for (int64_t i = 0; i < count; ++i, dst += lanes) {
    if (pixel[i] < 0) {
      for (int64_t j = 0; j < lanes; ++j) dst[j] = S{};
      continue;
    }
    const S* from = src + pixel[i] * stride;
    __builtin_prefetch(from + ahead);
    if constexpr (kLanes > 0) {
      __builtin_memcpy(dst, from, kLanes * sizeof(S));
      continue;
    }
    if (valid <= static_cast<int64_t>(kVectorBytes / sizeof(S))) {
      CopyFew(from, valid, dst);
    } else {
      for (int64_t j = 0; j < valid; ++j) dst[j] = from[j];
    }
    for (int64_t j = valid; j < lanes; ++j) dst[j] = S{};
  }
}

template <typename S>
void PackPixels(const S* src, const int32_t* pixel, int64_t count, int64_t stride, int64_t valid, int64_t lanes,
                int64_t ahead, S* dst) {
  constexpr int kFull = kVectorBytes / sizeof(S);
  if (valid == kFull && lanes == kFull) {
    PackPixelsOf<S, kFull>(src, pixel, count, stride, valid, lanes, ahead, dst);
  } else {
    PackPixelsOf<S, 0>(src, pixel, count, stride, valid, lanes, ahead, dst);
  }
}

constexpr int kSumLanes = 64;

template <typename A>
A AddPartial(A* partial) {
  for (int half = kSumLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) partial[i] += partial[i + half];
  return partial[0];
}

template <typename S, typename A>
A SumRun(const S* x, int64_t n) {
  A partial[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int j = 0; j < kSumLanes; ++j) partial[j] += Widen(x[i + j]);
  for (int j = 0; i + j < n; ++j) partial[j] += Widen(x[i + j]);
  return AddPartial(partial);
}

template <typename S, typename A>
A DotRun(const S* x, const S* y, int64_t n) {
  A partial[kSumLanes] = {};
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int j = 0; j < kSumLanes; ++j) partial[j] += Widen(x[i + j]) * Widen(y[i + j]);
  for (int j = 0; i + j < n; ++j) partial[j] += Widen(x[i + j]) * Widen(y[i + j]);
  return AddPartial(partial);
}

// sums[c] += sum over rows of x[r][c], or of x[r][c] * y[r][c] where y is not null. Four rows at a time, so that most
// of the time is reading x and y. Callers limit `rows`, which limits the rounding error.
template <int W, bool kDot, typename S, typename A>
SPARSEJAX_INLINE void AddColumns(const S* x, const S* y, int64_t rows, int64_t stride, A* sums) {
  const auto term = [&](int64_t r) -> Vec<A, W> {
    const Vec<A, W> v = LoadWide<W>(x + r * stride);
    if constexpr (kDot) return v * Vec<A, W>(LoadWide<W>(y + r * stride));
    return v;
  };
  Vec<A, W> total = Load<A, W>(sums);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) total += (term(r) + term(r + 1)) + (term(r + 2) + term(r + 3));
  for (; r < rows; ++r) total += term(r);
  Store<A, W>(sums, total);
}

template <bool kDot, typename S, typename A>
void AddRowsOf(const S* x, const S* y, int64_t rows, int64_t stride, int64_t n, A* sums) {
  constexpr int kFull = kVectorBytes / sizeof(A);
  for (int64_t r = 0; r < rows; r += 4) {
    const int64_t some = rows - r < 4 ? rows - r : 4, at = r * stride;
    int64_t c = 0;
    for (; c + kFull <= n; c += kFull) AddColumns<kFull, kDot>(x + at + c, y + at + c, some, stride, sums + c);
    for (; c < n; ++c) AddColumns<1, kDot>(x + at + c, y + at + c, some, stride, sums + c);
  }
}

template <typename S, typename A>
void AddRows(const S* x, const S* y, int64_t rows, int64_t stride, int64_t n, A* sums) {
  y != nullptr ? AddRowsOf<true>(x, y, rows, stride, n, sums) : AddRowsOf<false>(x, x, rows, stride, n, sums);
}

template <typename T>
void AddSlots(T* dst, int64_t stride, int64_t slots, int64_t n) {
  for (int64_t s = 1; s < slots; ++s) {
    const T* __restrict from = dst + s * stride;
    T* __restrict to = dst;
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
  }
}
