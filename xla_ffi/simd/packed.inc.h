// How kernels read packed elements of type S, multiply and add them as vectors of the type of their sums, and write
// sums as S.
//
// W consecutive elements are kParts vectors of kLanes. float and double have one part. A bfloat16 is the upper half of
// a float, so W of them are W / 2 words of 32 bits: the even elements, shifted up, are one part, and the odd ones,
// without the lower half, are the other. Both are exact. A tile takes half of the bytes of float, which is what limits
// kernels that read the second-level cache, for one operation more per vector of sums. Results are put together in the
// same way, so no element changes its place. packed_pairs.inc.h has the form for processors that multiply pairs of
// bfloat16.

template <typename To, typename From>
SPARSEJAX_INLINE To BitCast(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  __builtin_memcpy(&out, &v, sizeof(out));
  return out;
}

// Makes the compiler load a vector into a register once, instead of reading it from memory in each instruction.
template <typename V>
SPARSEJAX_INLINE void InRegister([[maybe_unused]] V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
}

template <typename S, int W>
struct Packed {
  static constexpr int kParts = 1, kLanes = W;
  static constexpr int kEntries = 1;  // the most that AddProducts takes
  using V = Vec<S, W>;
  using Bits = Vec<typename IntOf<sizeof(S)>::type, W>;
  using Elements = V;  // W of them, as they lie in memory

  // All bits set in the first n elements.
  static Bits Mask(int n) {
    Bits bits{};
    if constexpr (W > 1)
      for (int i = 0; i < W; ++i) bits[i] = i < n ? -1 : 0;
    return bits;
  }

  static SPARSEJAX_INLINE Elements Read(const S* p) { return Load<S, W>(p); }
  // The same with zeros outside `mask`.
  static SPARSEJAX_INLINE Elements Masked(Elements x, Bits mask) { return BitCast<V>(BitCast<Bits>(x) & mask); }
  static SPARSEJAX_INLINE void Write(S* p, const V* part) { Store<S, W>(p, part[0]); }
  static SPARSEJAX_INLINE void WriteLine(S* p, const V* part) { StoreLine<S, W>(p, part[0]); }

  // sum += data[u] * x[u] for u < E.
  template <int E>
  static SPARSEJAX_INLINE void AddProducts(const S* data, const Elements* x, V* sum) {
    sum[0] += data[0] * x[0];
  }
  // One factor of a product of elements, in the form in which AddDot takes it fastest: kFactors vectors.
  static constexpr int kFactors = 1;
  using Factor = V;
  static SPARSEJAX_INLINE void ToFactor(Elements x, Factor* factor) { factor[0] = x; }
  // sum += the product, or sum = the product where it is the first one; the lanes of `sum` are to be added.
  static SPARSEJAX_INLINE void AddDot(const Factor* factor, Elements x, bool first, V& sum) {
    sum = first ? factor[0] * x : sum + factor[0] * x;
  }
};

template <int W>
struct Packed<bfloat16, W> {
  static constexpr int kParts = 2, kLanes = W / 2;
  static constexpr int kEntries = 1;
  using V = Vec<float, kLanes>;
  using Bits = Vec<uint32_t, kLanes>;
  using Elements = Bits;

  static Bits Mask(int n) {
    Bits bits{};
    for (int i = 0; i < W; ++i) {
      const uint32_t half = i < n ? 0xffffu << (i % 2 * 16) : 0;
      if constexpr (kLanes > 1) {
        bits[i / 2] |= half;
      } else {
        bits |= half;
      }
    }
    return bits;
  }

  static SPARSEJAX_INLINE Elements Read(const bfloat16* p) {
    Bits words;
    __builtin_memcpy(&words, p, sizeof(words));
    if constexpr (sizeof(Bits) > 8) InRegister(words);
    return words;
  }
  static SPARSEJAX_INLINE Elements Masked(Elements x, Bits mask) { return x & mask; }
  static SPARSEJAX_INLINE void Write(bfloat16* p, const V* part) {
    const Bits words = Join(part);
    __builtin_memcpy(p, &words, sizeof(words));
  }
  static SPARSEJAX_INLINE void WriteLine(bfloat16* p, const V* part) {
    StoreLine<uint32_t, kLanes>(reinterpret_cast<uint32_t*>(p), Join(part));
  }

  template <int E>
  static SPARSEJAX_INLINE void AddProducts(const float* data, const Elements* x, V* sum) {
    sum[0] += data[0] * Even(x[0]);
    sum[1] += data[0] * Odd(x[0]);
  }
  static constexpr int kFactors = 2;
  using Factor = V;
  static SPARSEJAX_INLINE void ToFactor(Elements x, Factor* factor) {
    factor[0] = Even(x);
    factor[1] = Odd(x);
  }
  static SPARSEJAX_INLINE void AddDot(const Factor* factor, Elements x, bool first, V& sum) {
    sum = first ? factor[0] * Even(x) : sum + factor[0] * Even(x);
    sum += factor[1] * Odd(x);
  }

 private:
  static SPARSEJAX_INLINE V Even(Elements x) { return BitCast<V>(x << 16); }
  static SPARSEJAX_INLINE V Odd(Elements x) { return BitCast<V>(x & 0xffff0000u); }
  // Rounds to nearest even. The lower half of a NaN is zero, because it is that of an operand, or the processor's own;
  // so rounding keeps it a NaN.
  static SPARSEJAX_INLINE Bits Join(const V* part) {
    const Bits even = BitCast<Bits>(part[0]), odd = BitCast<Bits>(part[1]);
    const Bits low = even + 0x7fffu + ((even >> 16) & 1u), high = odd + 0x7fffu + ((odd >> 16) & 1u);
    return (low >> 16) | (high & 0xffff0000u);
  }
};

template <>
struct Packed<bfloat16, 1> {
  static constexpr int kParts = 1, kLanes = 1, kFactors = 1, kEntries = 1;
  using V = float;
  using Bits = int32_t;
  using Elements = float;
  using Factor = float;

  static Bits Mask(int) { return 0; }
  static SPARSEJAX_INLINE Elements Read(const bfloat16* p) { return Widen(*p); }
  static SPARSEJAX_INLINE Elements Masked(Elements x, Bits) { return x; }
  static SPARSEJAX_INLINE void Write(bfloat16* p, const V* part) { Narrow(part[0], p); }
  static SPARSEJAX_INLINE void WriteLine(bfloat16*, const V*) {}
  template <int E>
  static SPARSEJAX_INLINE void AddProducts(const float* data, const Elements* x, V* sum) {
    sum[0] += data[0] * x[0];
  }
  static SPARSEJAX_INLINE void ToFactor(Elements x, Factor* factor) { factor[0] = x; }
  static SPARSEJAX_INLINE void AddDot(const Factor* factor, Elements x, bool first, V& sum) {
    sum = first ? factor[0] * x : sum + factor[0] * x;
  }
};

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include "packed_pairs.inc.h"
#endif
