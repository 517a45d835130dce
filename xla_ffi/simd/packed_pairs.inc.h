// Packed<bfloat16, W> for processors with an instruction that adds the products of two pairs of bfloat16 to a float
// (vdpbf16ps, bfdot), where a vector has 16 bytes or more.
//
// Two vectors of W elements, of two entries of a row, are interleaved: a word then has the same example of both
// entries, and is multiplied with the word of their two values. So one instruction does the work of two multiply-adds,
// and no example meets another one. In the product of two vectors of elements, a weight gradient, it does the work of
// two as well. Interleaving exchanges quarters of vectors, so the parts of a vector are the lower and the upper four
// elements of every 16 bytes; results are put together in the same order.
//
// Products are exact, but numbers below 2^-126 count as zero. vdpbf16ps rounds sums as two multiply-adds do. bfdot adds
// the two products first, and rounds to odd: by up to a unit in the last place, with no preferred sign.

// The operations of the instruction set for vectors of kBytes.
template <int kBytes>
struct Pairs;

#if defined(__AVX512BF16__)
template <>
struct Pairs<64> {
  using Words = __m512i;
  using Sums = __m512;
  static SPARSEJAX_INLINE Words Low(Words a, Words b) { return _mm512_unpacklo_epi16(a, b); }
  static SPARSEJAX_INLINE Words High(Words a, Words b) { return _mm512_unpackhi_epi16(a, b); }
  static SPARSEJAX_INLINE Words Repeat(uint32_t w) { return _mm512_set1_epi32(static_cast<int>(w)); }
  static SPARSEJAX_INLINE Sums Add(Sums sum, Words a, Words b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
  static SPARSEJAX_INLINE Words Join(Words low, Words high) { return _mm512_packus_epi32(low, high); }
};

template <>
struct Pairs<32> {
  using Words = __m256i;
  using Sums = __m256;
  static SPARSEJAX_INLINE Words Low(Words a, Words b) { return _mm256_unpacklo_epi16(a, b); }
  static SPARSEJAX_INLINE Words High(Words a, Words b) { return _mm256_unpackhi_epi16(a, b); }
  static SPARSEJAX_INLINE Words Repeat(uint32_t w) { return _mm256_set1_epi32(static_cast<int>(w)); }
  static SPARSEJAX_INLINE Sums Add(Sums sum, Words a, Words b) {
    return _mm256_dpbf16_ps(sum, (__m256bh)a, (__m256bh)b);
  }
  static SPARSEJAX_INLINE Words Join(Words low, Words high) { return _mm256_packus_epi32(low, high); }
};

template <>
struct Pairs<16> {
  using Words = __m128i;
  using Sums = __m128;
  static SPARSEJAX_INLINE Words Low(Words a, Words b) { return _mm_unpacklo_epi16(a, b); }
  static SPARSEJAX_INLINE Words High(Words a, Words b) { return _mm_unpackhi_epi16(a, b); }
  static SPARSEJAX_INLINE Words Repeat(uint32_t w) { return _mm_set1_epi32(static_cast<int>(w)); }
  static SPARSEJAX_INLINE Sums Add(Sums sum, Words a, Words b) { return _mm_dpbf16_ps(sum, (__m128bh)a, (__m128bh)b); }
  static SPARSEJAX_INLINE Words Join(Words low, Words high) { return _mm_packus_epi32(low, high); }
};
#else
template <>
struct Pairs<16> {
  using Words = uint16x8_t;
  using Sums = float32x4_t;
  static SPARSEJAX_INLINE Words Low(Words a, Words b) { return vzip1q_u16(a, b); }
  static SPARSEJAX_INLINE Words High(Words a, Words b) { return vzip2q_u16(a, b); }
  static SPARSEJAX_INLINE Words Repeat(uint32_t w) { return vreinterpretq_u16_u32(vdupq_n_u32(w)); }
  static SPARSEJAX_INLINE Sums Add(Sums sum, Words a, Words b) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_u16(a), vreinterpretq_bf16_u16(b));
  }
  static SPARSEJAX_INLINE Words Join(Words low, Words high) { return vuzp1q_u16(low, high); }
};
#endif

template <int W>
  requires(W >= 8)
struct Packed<bfloat16, W> {
  using P = Pairs<2 * W>;
  static constexpr int kParts = 2, kLanes = W / 2, kFactors = 1;
  static constexpr int kEntries = 2;
  using V = Vec<float, kLanes>;
  using Bits = typename P::Words;
  using Elements = Bits;
  using Factor = Bits;

  static Bits Mask(int n) {
    Vec<uint16_t, W> bits{};
    for (int i = 0; i < n; ++i) bits[i] = 0xffffu;
    return BitCast<Bits>(bits);
  }

  static SPARSEJAX_INLINE Elements Read(const bfloat16* p) {
    Elements x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
  static SPARSEJAX_INLINE Elements Masked(Elements x, Bits mask) { return x & mask; }
  static SPARSEJAX_INLINE void Write(bfloat16* p, const V* part) {
    const Bits words = Join(part);
    __builtin_memcpy(p, &words, sizeof(words));
  }
  static SPARSEJAX_INLINE void WriteLine(bfloat16* p, const V* part) {
    StoreLine<uint32_t, kLanes>(reinterpret_cast<uint32_t*>(p), BitCast<Vec<uint32_t, kLanes>>(Join(part)));
  }

  template <int E>
  static SPARSEJAX_INLINE void AddProducts(const float* data, const Elements* x, V* sum) {
    const Elements w = P::Repeat(ValueWord<E>(data)), other = E == 2 ? x[E - 1] : Elements{};
    sum[0] = P::Add(sum[0], P::Low(x[0], other), w);
    sum[1] = P::Add(sum[1], P::High(x[0], other), w);
  }
  static SPARSEJAX_INLINE void ToFactor(Elements x, Factor* factor) { factor[0] = x; }
  static SPARSEJAX_INLINE void AddDot(const Factor* factor, Elements x, bool first, V& sum) {
    sum = P::Add(first ? V{} : sum, x, factor[0]);
  }

 private:
  // The upper halves of one or two floats, of which the lower ones are zero: values are bfloat16, widened.
  template <int E>
  static SPARSEJAX_INLINE uint32_t ValueWord(const float* data) {
    if constexpr (E == 1) return BitCast<uint32_t>(data[0]) >> 16;
    uint32_t first;  // the upper half of data[0] and the lower one of data[1]
    __builtin_memcpy(&first, reinterpret_cast<const char*>(data) + 2, sizeof(first));
    return first | BitCast<uint32_t>(data[E - 1]);
  }
  // Rounds to nearest even, as in packed.inc.h.
  static SPARSEJAX_INLINE Bits Join(const V* part) {
    using Ints = Vec<uint32_t, kLanes>;
    const Ints low = BitCast<Ints>(part[0]), high = BitCast<Ints>(part[1]);
    return P::Join(BitCast<Bits>((low + 0x7fffu + ((low >> 16) & 1u)) >> 16),
                   BitCast<Bits>((high + 0x7fffu + ((high >> 16) & 1u)) >> 16));
  }
};
