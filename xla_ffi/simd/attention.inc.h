// The arithmetic of attention: small matrix products, and softmax with its gradient on blocks of scores.
//
// Scores lie transposed: a row is a key, and the lanes of a row are queries. So the maximum and the sum over keys, the
// mask and the shift of each query are vectors, and no sum runs across lanes.
//
// TileProduct: c[r][x] = sum over k of a[r][k] * b[k][x], with full vectors along x. kVecs vectors of up to kTileRows
// rows stay in registers (12 of 16 with AVX2); one load of b serves all rows, one broadcast of a all vectors. Each
// element adds its products in the order of k, whatever the tile, so a block computed again has the same bits. `a` is
// read with unit stride along k, or along r (`a_row` 1), which lets the compiler address a tile with few registers.
// Softmax reads each score twice, both times from the first-level cache.

constexpr int kTileVecs = 2;
constexpr int kTileRows = kMaxVecs / kTileVecs;

// 2^x for x <= 1 to one or two units in the last place; 0 below the smallest normal number, NaN for NaN. The fraction
// f = x - round(x) is in [-1/2, 1/2]; 2^f is a Taylor polynomial whose remainder is about the rounding error (Muller
// 2016, "Elementary Functions", section 3.2).
template <typename T>
struct Exp2Constants;
template <>
struct Exp2Constants<float> {
  static constexpr int kDegree = 6, kMantissa = 23, kBias = 127;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the lower bits
};
template <>
struct Exp2Constants<double> {
  static constexpr int kDegree = 13, kMantissa = 52, kBias = 1023;
  static constexpr double kRound = 6755399441055744.0;
};

template <typename T>
constexpr T TaylorOfExp2(int n) {
  double c = 1;
  for (int i = 1; i <= n; ++i) c *= 0.693147180559945309417 / i;
  return static_cast<T>(c);
}

template <typename T, int W>
SPARSEJAX_INLINE Vec<T, W> Exp2(Vec<T, W> x) {
  using C = Exp2Constants<T>;
  using I = Vec<typename IntOf<sizeof(T)>::type, W>;
  const Vec<T, W> lowest = Vec<T, W>{} - T(C::kBias);  // whose power is 0 below
  x = lowest > x ? lowest : x;
  const Vec<T, W> shifted = x + C::kRound;
  const Vec<T, W> f = x - (shifted - C::kRound);
  Vec<T, W> p = Vec<T, W>{} + TaylorOfExp2<T>(C::kDegree);
#pragma GCC unroll 16
  for (int n = C::kDegree - 1; n >= 0; --n) p = p * f + TaylorOfExp2<T>(n);
  const I power = ((I)shifted + C::kBias) << C::kMantissa;  // drops the upper bits of kRound
  return p * (Vec<T, W>)power;
}

template <typename T, int R, int V, bool kUnitRows>
void ProductTile(const TileProduct<T>& p, const T* a, const T* b, T* c) {
  constexpr int W = kVectorBytes / sizeof(T);
  const int64_t b_step = p.b_step, c_row = p.c_row;
  const bool accumulate = p.accumulate;
  Vec<T, W> acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = accumulate ? Load<T, W>(c + r * c_row + v * W) : Vec<T, W>{};
  const int64_t steps = p.steps, a_row = kUnitRows ? 1 : p.a_row, a_step = kUnitRows ? p.a_step : 1;
  for (int64_t k = 0; k < steps; ++k) {
    Vec<T, W> line[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) line[v] = Load<T, W>(b + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T w = a[r * a_row];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] += w * line[v];
    }
    a += a_step;
    b += b_step;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) Store<T, W>(c + r * c_row + v * W, acc[r][v]);
}

template <typename T, int R, int V, bool kUnitRows>
SPARSEJAX_INLINE void ProductRest(const TileProduct<T>& p, int64_t rows, const T* a, const T* b, T* c) {
  if (rows == R) return ProductTile<T, R, V, kUnitRows>(p, a, b, c);
  if constexpr (R > 1) ProductRest<T, R - 1, V, kUnitRows>(p, rows, a, b, c);
}

// Up to kTileRows rows of up to kTileVecs vectors from column x.
template <typename T, bool kUnitRows>
SPARSEJAX_INLINE void ProductAt(const TileProduct<T>& p, int64_t r, int64_t x) {
  constexpr int W = kVectorBytes / sizeof(T);
  const int64_t rows = p.rows - r < kTileRows ? p.rows - r : kTileRows;
  const T *a = p.a + r * (kUnitRows ? 1 : p.a_row), *b = p.b + x;
  T* c = p.c + r * p.c_row + x;
  if (p.columns - x > W) {
    ProductRest<T, kTileRows, kTileVecs, kUnitRows>(p, rows, a, b, c);
  } else {
    ProductRest<T, kTileRows, 1, kUnitRows>(p, rows, a, b, c);
  }
}

// The inner loop runs over what stays in the first-level cache: with unit rows the columns of b of one tile, which are
// long; otherwise the rows of a, with all of b.
template <typename T>
void Product(const TileProduct<T>& p) {
  constexpr int kColumns = kTileVecs * kVectorBytes / sizeof(T);
  if (p.a_row == 1) {
    for (int64_t x = 0; x < p.columns; x += kColumns)
      for (int64_t r = 0; r < p.rows; r += kTileRows) ProductAt<T, true>(p, r, x);
  } else {
    for (int64_t r = 0; r < p.rows; r += kTileRows)
      for (int64_t x = 0; x < p.columns; x += kColumns) ProductAt<T, false>(p, r, x);
  }
}

// The score of one key for W queries from lane `l` on, in units of log2: the scaled product and what is added to it, or
// ScoreBlock::kMasked. Nothing else has that value, because additions are limited to above it.
template <typename T, int W>
SPARSEJAX_INLINE Vec<T, W> Score(const ScoreBlock<T>& p, int64_t key, int64_t l) {
  using I = Vec<typename IntOf<sizeof(T)>::type, W>;
  using Int = typename IntOf<sizeof(T)>::type;
  const Vec<T, W> masked = Vec<T, W>{} + ScoreBlock<T>::kMasked;
  Vec<T, W> x = Load<T, W>(p.scores + key * p.stride + l) * p.factor;
  if (p.extra != nullptr) {
    const Vec<T, W> extra = Load<T, W>(p.extra + key * p.stride + l);
    x = extra == masked ? masked : x + extra;
  }
  if (key > p.last_key) {  // some of the lanes may not see it
    I lane;
    for (int i = 0; i < W; ++i) lane[i] = static_cast<Int>(i);
    x = lane + static_cast<Int>(l + p.last_key - key) >= 0 ? x : masked;
  }
  return x;
}

// Online softmax (Milakov and Gimelshein 2018, algorithm 3; Dao 2023, "FlashAttention-2", algorithm 1): the scores
// become exp2(score - peak), where peak is the highest so far, and `total` their sum, after what they held was
// multiplied by `decay`.
template <typename T, int V>
SPARSEJAX_INLINE void SoftmaxOf(const ScoreBlock<T>& p, int64_t l) {
  constexpr int W = kVectorBytes / sizeof(T);
  Vec<T, W> peak[V], total[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) peak[v] = Load<T, W>(p.peak + l + v * W);
  for (int64_t key = 0; key < p.keys; ++key)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Vec<T, W> x = Score<T, W>(p, key, l + v * W);
      Store<T, W>(p.scores + key * p.stride + l + v * W, x);
      peak[v] = x > peak[v] ? x : peak[v];
    }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Vec<T, W> decay = Exp2<T, W>(Load<T, W>(p.peak + l + v * W) - peak[v]);
    total[v] = Load<T, W>(p.total + l + v * W) * decay;
    Store<T, W>(p.decay + l + v * W, decay);
    Store<T, W>(p.peak + l + v * W, peak[v]);
  }
  for (int64_t key = 0; key < p.keys; ++key)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* at = p.scores + key * p.stride + l + v * W;
      const Vec<T, W> weight = Exp2<T, W>(Load<T, W>(at) - peak[v]);
      Store<T, W>(at, weight);
      total[v] += weight;
    }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) Store<T, W>(p.total + l + v * W, total[v]);
}

template <typename T>
void Softmax(const ScoreBlock<T>& args) {
  constexpr int W = kVectorBytes / sizeof(T);
  const ScoreBlock<T> p = args;  // a copy, which stores to scores cannot change
  int64_t l = 0;
  for (; l + W < p.lanes; l += kTileVecs * W) SoftmaxOf<T, kTileVecs>(p, l);
  for (; l < p.lanes; l += W) SoftmaxOf<T, 1>(p, l);
}

// From products of queries and keys, and those of cotangents and values in `slopes`: the weights exp2(score - peak -
// total), where `total` is the logarithm, and the gradients weight * (slope - mean) * scale of the products. A masked
// score has no gradient.
template <typename T>
void SoftmaxGrad(const ScoreBlock<T>& args) {
  constexpr int W = kVectorBytes / sizeof(T);
  const ScoreBlock<T> p = args;
  const Vec<T, W> masked = Vec<T, W>{} + ScoreBlock<T>::kMasked;
  for (int64_t key = 0; key < p.keys; ++key)
    for (int64_t l = 0; l < p.lanes; l += W) {
      T *at = p.scores + key * p.stride + l, *slope = p.slopes + key * p.stride + l;
      const Vec<T, W> x = Score<T, W>(p, key, l);
      const Vec<T, W> weight = Exp2<T, W>(x - Load<T, W>(p.peak + l) - Load<T, W>(p.total + l));
      const Vec<T, W> grad = weight * (Load<T, W>(slope) - Load<T, W>(p.mean + l)) * p.scale;
      Store<T, W>(at, weight);
      Store<T, W>(slope, x == masked ? Vec<T, W>{} : grad);
    }
}

// x[r][l] *= factor[l] for full vectors of lanes.
template <typename T>
void ScaleLanes(T* x, int64_t rows, int64_t stride, int64_t lanes, const T* factor) {
  constexpr int W = kVectorBytes / sizeof(T);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t l = 0; l < lanes; l += W)
      Store<T, W>(x + r * stride + l, Load<T, W>(x + r * stride + l) * Load<T, W>(factor + l));
}
