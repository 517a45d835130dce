// dst[c][r] = src[r][c]: between activations in memory, whose rows are examples, and packed tiles, whose rows are
// features.
//
// A step takes W rows and P columns, P elements being 16 bytes: it loads W pieces of P elements, those of rows i, i +
// P, i + 2 P, ... as one vector, and transposes P x P elements within each 16 bytes of P vectors. The result is P
// vectors of W rows each. So a step needs P registers and few shuffles, whatever W is. Elements are converted on the
// way. Where a vector is four pieces and nothing is converted, W rows are transposed in blocks of W columns, which
// reads whole cache lines.

// In every 16 bytes: a0 b0 a1 b1 ... of the lower halves, and of the upper ones. bfloat16 is moved as uint16_t.
SPARSEJAX_INLINE Vec<uint16_t, 8> InterleaveLow(Vec<uint16_t, 8> a, Vec<uint16_t, 8> b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
SPARSEJAX_INLINE Vec<uint16_t, 8> InterleaveHigh(Vec<uint16_t, 8> a, Vec<uint16_t, 8> b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
SPARSEJAX_INLINE Vec<uint16_t, 16> InterleaveLow(Vec<uint16_t, 16> a, Vec<uint16_t, 16> b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
}
SPARSEJAX_INLINE Vec<uint16_t, 16> InterleaveHigh(Vec<uint16_t, 16> a, Vec<uint16_t, 16> b) {
  return __builtin_shufflevector(a, b, 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31);
}
SPARSEJAX_INLINE Vec<uint16_t, 32> InterleaveLow(Vec<uint16_t, 32> a, Vec<uint16_t, 32> b) {
  return __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 8, 40, 9, 41, 10, 42, 11, 43, 16, 48, 17, 49, 18, 50,
                                 19, 51, 24, 56, 25, 57, 26, 58, 27, 59);
}
SPARSEJAX_INLINE Vec<uint16_t, 32> InterleaveHigh(Vec<uint16_t, 32> a, Vec<uint16_t, 32> b) {
  return __builtin_shufflevector(a, b, 4, 36, 5, 37, 6, 38, 7, 39, 12, 44, 13, 45, 14, 46, 15, 47, 20, 52, 21, 53, 22,
                                 54, 23, 55, 28, 60, 29, 61, 30, 62, 31, 63);
}
SPARSEJAX_INLINE Vec<float, 4> InterleaveLow(Vec<float, 4> a, Vec<float, 4> b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
SPARSEJAX_INLINE Vec<float, 4> InterleaveHigh(Vec<float, 4> a, Vec<float, 4> b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
SPARSEJAX_INLINE Vec<float, 8> InterleaveLow(Vec<float, 8> a, Vec<float, 8> b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
}
SPARSEJAX_INLINE Vec<float, 8> InterleaveHigh(Vec<float, 8> a, Vec<float, 8> b) {
  return __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
SPARSEJAX_INLINE Vec<float, 16> InterleaveLow(Vec<float, 16> a, Vec<float, 16> b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
}
SPARSEJAX_INLINE Vec<float, 16> InterleaveHigh(Vec<float, 16> a, Vec<float, 16> b) {
  return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
SPARSEJAX_INLINE Vec<double, 2> InterleaveLow(Vec<double, 2> a, Vec<double, 2> b) {
  return __builtin_shufflevector(a, b, 0, 2);
}
SPARSEJAX_INLINE Vec<double, 2> InterleaveHigh(Vec<double, 2> a, Vec<double, 2> b) {
  return __builtin_shufflevector(a, b, 1, 3);
}
SPARSEJAX_INLINE Vec<double, 4> InterleaveLow(Vec<double, 4> a, Vec<double, 4> b) {
  return __builtin_shufflevector(a, b, 0, 4, 2, 6);
}
SPARSEJAX_INLINE Vec<double, 4> InterleaveHigh(Vec<double, 4> a, Vec<double, 4> b) {
  return __builtin_shufflevector(a, b, 1, 5, 3, 7);
}
SPARSEJAX_INLINE Vec<double, 8> InterleaveLow(Vec<double, 8> a, Vec<double, 8> b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
}
SPARSEJAX_INLINE Vec<double, 8> InterleaveHigh(Vec<double, 8> a, Vec<double, 8> b) {
  return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}

// Transposes the elements within each 16 bytes of the vectors.
template <int W>
SPARSEJAX_INLINE void TransposePieces(Vec<double, W> (&v)[2]) {
  const Vec<double, W> low = InterleaveLow(v[0], v[1]);
  v[1] = InterleaveHigh(v[0], v[1]);
  v[0] = low;
}
template <int W>
SPARSEJAX_INLINE void TransposePieces(Vec<float, W> (&v)[4]) {
  using Pairs = Vec<double, W / 2>;  // two floats are moved as one element
  Pairs low[2] = {(Pairs)InterleaveLow(v[0], v[1]), (Pairs)InterleaveLow(v[2], v[3])};
  Pairs high[2] = {(Pairs)InterleaveHigh(v[0], v[1]), (Pairs)InterleaveHigh(v[2], v[3])};
  TransposePieces<W / 2>(low);
  TransposePieces<W / 2>(high);
  v[0] = (Vec<float, W>)low[0], v[1] = (Vec<float, W>)low[1];
  v[2] = (Vec<float, W>)high[0], v[3] = (Vec<float, W>)high[1];
}

template <int W>
SPARSEJAX_INLINE void TransposePieces(Vec<uint16_t, W> (&v)[8]) {
  using Pairs = Vec<float, W / 2>;
  Pairs low[4], high[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    low[i] = (Pairs)InterleaveLow(v[2 * i], v[2 * i + 1]);
    high[i] = (Pairs)InterleaveHigh(v[2 * i], v[2 * i + 1]);
  }
  TransposePieces<W / 2>(low);
  TransposePieces<W / 2>(high);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = (Vec<uint16_t, W>)low[i], v[4 + i] = (Vec<uint16_t, W>)high[i];
}

template <typename V>
SPARSEJAX_INLINE Vec<uint16_t, 16> Concat(Vec<uint16_t, 8> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
template <typename V>
SPARSEJAX_INLINE Vec<uint16_t, 32> Concat(Vec<uint16_t, 16> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                 23, 24, 25, 26, 27, 28, 29, 30, 31);
}
template <typename V>
SPARSEJAX_INLINE Vec<float, 8> Concat(Vec<float, 4> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}
template <typename V>
SPARSEJAX_INLINE Vec<float, 16> Concat(Vec<float, 8> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
template <typename V>
SPARSEJAX_INLINE Vec<double, 4> Concat(Vec<double, 2> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3);
}
template <typename V>
SPARSEJAX_INLINE Vec<double, 8> Concat(Vec<double, 4> a, V b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}

// The type that elements are moved as.
template <typename S>
struct MovedAs {
  using type = S;
};
template <>
struct MovedAs<bfloat16> {
  using type = uint16_t;
};

// Elements of A in 16 bytes.
template <typename A>
constexpr int kPiece = 16 / sizeof(A);

// The first elements of rows 0, P, 2 P, ..., one piece each.
template <typename A, int W, typename S>
SPARSEJAX_INLINE Vec<A, W> LoadPieces(const S* src, int64_t stride) {
  if constexpr (W == kPiece<A> && sizeof(S) == sizeof(A)) {
    Vec<A, W> piece;
    __builtin_memcpy(&piece, src, sizeof(piece));
    return piece;
  } else if constexpr (W == kPiece<A>) {
    return LoadWide<W>(src);
  } else {
    return Concat(LoadPieces<A, W / 2>(src, stride), LoadPieces<A, W / 2>(src + W / 2 * stride, stride));
  }
}

// One step. With kStream, each vector of the result is a cache line, which is written around the caches.
template <typename A, int W, bool kStream, typename S, typename D>
SPARSEJAX_INLINE void TransposeStep(const S* src, int64_t src_stride, D* dst, int64_t dst_stride) {
  constexpr int P = kPiece<A>;
  Vec<A, W> v[P];
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i) v[i] = LoadPieces<A, W>(src + i * src_stride, src_stride);
  TransposePieces<W>(v);
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i) {
    if constexpr (kStream) {
      StoreLine<A, W>(reinterpret_cast<A*>(dst + i * dst_stride), v[i]);
    } else if constexpr (sizeof(A) == sizeof(D)) {
      __builtin_memcpy(dst + i * dst_stride, &v[i], sizeof(v[i]));
    } else {
      StoreNarrow<W>(dst + i * dst_stride, v[i]);
    }
  }
}

// In vectors of four pieces: the even pieces of a, then those of b; and the odd ones.
template <typename V>
SPARSEJAX_INLINE V EvenPieces(V a, V b) {
  using Pairs = Vec<double, 8>;
  return (V)__builtin_shufflevector((Pairs)a, (Pairs)b, 0, 1, 4, 5, 8, 9, 12, 13);
}
template <typename V>
SPARSEJAX_INLINE V OddPieces(V a, V b) {
  using Pairs = Vec<double, 8>;
  return (V)__builtin_shufflevector((Pairs)a, (Pairs)b, 2, 3, 6, 7, 10, 11, 14, 15);
}

// W rows of W columns, where a vector is four pieces.
template <typename A, int W, typename S>
SPARSEJAX_INLINE void TransposeBlock(const S* src, int64_t src_stride, S* dst, int64_t dst_stride) {
  constexpr int P = kPiece<A>;
  static_assert(W == 4 * P && sizeof(S) == sizeof(A));
  Vec<A, W> v[4][P];  // after the first loop: piece j of v[g][i] is column j * P + i of rows g * P to g * P + P - 1
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) __builtin_memcpy(&v[g][i], src + (g * P + i) * src_stride, sizeof(v[g][i]));
    TransposePieces<W>(v[g]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i) {
    const Vec<A, W> even_low = EvenPieces(v[0][i], v[1][i]), even_high = EvenPieces(v[2][i], v[3][i]);
    const Vec<A, W> odd_low = OddPieces(v[0][i], v[1][i]), odd_high = OddPieces(v[2][i], v[3][i]);
    const Vec<A, W> columns[4] = {EvenPieces(even_low, even_high), EvenPieces(odd_low, odd_high),
                                  OddPieces(even_low, even_high), OddPieces(odd_low, odd_high)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) __builtin_memcpy(dst + (j * P + i) * dst_stride, &columns[j], sizeof(columns[j]));
  }
}

// All rows of P columns, or of fewer. `stream`: the vectors of the result are cache lines.
template <typename A, typename S, typename D>
SPARSEJAX_INLINE void TransposeColumns(const S* src, int64_t rows, int64_t columns, int64_t src_stride, D* dst,
                                       int64_t dst_stride, bool stream) {
  constexpr int W = kVectorBytes / sizeof(A), P = kPiece<A>;
  int64_t r = 0;
  if (columns >= P) {
    if constexpr (sizeof(A) == sizeof(D))
      for (; stream && r + W <= rows; r += W)
        TransposeStep<A, W, true>(src + r * src_stride, src_stride, dst + r, dst_stride);
    for (; r + W <= rows; r += W) TransposeStep<A, W, false>(src + r * src_stride, src_stride, dst + r, dst_stride);
    for (; r + P <= rows; r += P) TransposeStep<A, P, false>(src + r * src_stride, src_stride, dst + r, dst_stride);
  }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns && c < P; ++c) Convert(src[r * src_stride + c], dst + c * dst_stride + r);
}

template <typename A, typename S, typename D>
SPARSEJAX_INLINE void Transpose(const S* src, int64_t rows, int64_t columns, int64_t src_stride, D* dst,
                                int64_t dst_stride, bool stream) {
  stream = stream && AreLines<D, kVectorBytes / sizeof(D)>(dst, dst_stride, 0);
  constexpr int W = kVectorBytes / sizeof(A);
  int64_t c = 0;
  if constexpr (W == 4 * kPiece<A> && sizeof(S) == sizeof(A) && sizeof(D) == sizeof(A))
    if (rows == W && !stream)
      for (; c + W <= columns; c += W) TransposeBlock<A, W>(src + c, src_stride, dst + c * dst_stride, dst_stride);
  for (; c < columns; c += kPiece<A>)
    TransposeColumns<A>(src + c, rows, columns - c, src_stride, dst + c * dst_stride, dst_stride, stream);
  if (stream) FenceLines();
}

// Without a conversion.
template <typename S>
void TransposeRows(const S* src, int64_t rows, int64_t columns, int64_t src_stride, S* dst, int64_t dst_stride,
                   bool stream) {
  using A = typename MovedAs<S>::type;
  Transpose<A>(src, rows, columns, src_stride, dst, dst_stride, stream);
}

// With a conversion.
template <typename S, typename A>
void LoadTransposed(const S* src, int64_t rows, int64_t columns, int64_t src_stride, A* dst, int64_t dst_stride) {
  constexpr int W = kVectorBytes / sizeof(A);
  for (int64_t r = 0; r < rows; r += W)
    Transpose<A>(src + r * src_stride, rows - r < W ? rows - r : W, columns, src_stride, dst + r, dst_stride, false);
}
template <typename S, typename A>
void StoreTransposed(const A* src, int64_t rows, int64_t columns, int64_t src_stride, S* dst, int64_t dst_stride) {
  Transpose<A>(src, rows, columns, src_stride, dst, dst_stride, false);
}
