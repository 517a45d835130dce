// TileProduct on pairs of bfloat16, for attention whose operands are bfloat16: operands in float are rounded to
// bfloat16, two steps become one word, and one instruction adds both products (packed_pairs.inc.h). Queries, keys,
// values and cotangents are bfloat16 already. Weights and the gradients of the scores are rounded, as where attention
// is computed from a matrix of weights in bfloat16.
//
// Blocks of `a` and `b` are packed on the stack: a word costs less than two instructions, and is used in 64 products or
// so. Each element adds its products in the order of the steps, whatever the block.

constexpr int64_t kPairSteps = 64, kPairRows = 64, kPairColumns = 64;  // of a block
constexpr int64_t kPairVector = 16;                                    // words
constexpr int kPairTileVecs = 2, kPairTileRows = kMaxVecs / kPairTileVecs;

struct PairBlock {
  alignas(64) uint32_t words[kPairSteps / 2 * kPairColumns];

  // For each two lines of `src`, which has `steps`, one line of words, of `columns` rounded up to full vectors. After
  // an odd last line come zeros.
  void PackLines(const float* src, int64_t stride, int64_t steps, int64_t columns) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t k = 0; k < steps; k += 2)
      for (int64_t x = 0; x < columns; x += kPairVector) {
        const float* at = src + k * stride + x;
        const __m512 first = _mm512_loadu_ps(at);
        const __m512 second = k + 1 < steps ? _mm512_loadu_ps(at + stride) : _mm512_setzero_ps();
        _mm512_store_si512(words + k / 2 * kPairColumns + x,
                           _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first)));
      }
  }

  // For each row of `src`, a row of words of neighbouring elements, kPairSteps / 2 words long; after an odd last
  // element comes a zero.
  void PackRows(const float* src, int64_t stride, int64_t rows, int64_t steps) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < steps; k += kPairVector) {
        const auto some = static_cast<__mmask16>(steps - k < kPairVector ? (1u << (steps - k)) - 1 : 0xffffu);
        _mm256_store_si256(reinterpret_cast<__m256i*>(words + r * (kPairSteps / 2) + k / 2),
                           (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(some, src + r * stride + k)));
      }
  }
};

// c[r][x] = [c[r][x] +] sum over k < pairs of the products of the words a[r][k] and b[k][x], for V vectors of x.
template <int R, int V>
void PairTile(const uint32_t* a, int64_t a_row, int64_t a_step, const uint32_t* b, int64_t pairs, float* c,
              int64_t c_row, bool accumulate) {
  __m512 acc[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      acc[r][v] = accumulate ? _mm512_loadu_ps(c + r * c_row + v * kPairVector) : _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; ++k, a += a_step, b += kPairColumns) {
    __m512i line[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) line[v] = _mm512_load_si512(b + v * kPairVector);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto word = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[r * a_row]));
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], word, (__m512bh)line[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(c + r * c_row + v * kPairVector, acc[r][v]);
}

template <int V, int R = kPairTileRows>
SPARSEJAX_INLINE void PairTileOf(int64_t rows, const uint32_t* a, int64_t a_row, int64_t a_step, const uint32_t* b,
                                 int64_t pairs, float* c, int64_t c_row, bool accumulate) {
  if (rows >= R) return PairTile<R, V>(a, a_row, a_step, b, pairs, c, c_row, accumulate);
  if constexpr (R > 1) PairTileOf<V, R - 1>(rows, a, a_row, a_step, b, pairs, c, c_row, accumulate);
}

// Some rows and columns of the product, from their packed operands.
void PairTiles(const PairBlock& a, int64_t a_row, int64_t a_step, const PairBlock& b, int64_t rows, int64_t columns,
               int64_t pairs, float* c, int64_t c_row, bool accumulate) {
  constexpr int64_t kColumns = kPairTileVecs * kPairVector;
  for (int64_t r = 0; r < rows; r += kPairTileRows)
    for (int64_t x = 0; x < columns; x += kColumns) {
      const uint32_t *from = a.words + r * a_row, *line = b.words + x;
      float* to = c + r * c_row + x;
      if (columns - x > kPairVector) {
        PairTileOf<kPairTileVecs>(rows - r, from, a_row, a_step, line, pairs, to, c_row, accumulate);
      } else {
        PairTileOf<1>(rows - r, from, a_row, a_step, line, pairs, to, c_row, accumulate);
      }
    }
}

void ProductOfPairs(const TileProduct<float>& p) {
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
  const bool unit_rows = p.a_row == 1;
  PairBlock a, b;
  for (int64_t x = 0; x < p.columns; x += kPairColumns)
    for (int64_t k = 0; k == 0 || k < p.steps; k += kPairSteps) {
      const int64_t columns = least(kPairColumns, p.columns - x), steps = least(kPairSteps, p.steps - k);
      b.PackLines(p.b + k * p.b_step + x, p.b_step, steps, columns);
      for (int64_t r = 0; r < p.rows; r += kPairRows) {
        const int64_t rows = least(kPairRows, p.rows - r);
        const float* from = p.a + r * p.a_row + k * p.a_step;
        unit_rows ? a.PackLines(from, p.a_step, steps, rows) : a.PackRows(from, p.a_row, rows, steps);
        PairTiles(a, unit_rows ? 1 : kPairSteps / 2, unit_rows ? kPairColumns : 1, b, rows, columns, (steps + 1) / 2,
                  p.c + r * p.c_row + x, p.c_row, p.accumulate || k > 0);
      }
    }
}
