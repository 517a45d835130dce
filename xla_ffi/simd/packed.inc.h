// How kernels read packed elements of type S as vectors of the type of their sums, and how they write sums as S.
//
// W consecutive elements are kParts vectors of kLanes. float and double have one part. A bfloat16 is the upper half of
// a float, so W of them are W / 2 words of 32 bits: the even elements, shifted up, are one part, and the odd ones,
// without the lower half, are the other. Both are exact. A tile takes half of the bytes of float, which is what limits
// kernels that read the second-level cache, for one operation more per vector of sums. Results are put together in the
// same way, so no element changes its place. (Products of pairs, vdpbf16ps, take four times as long as a multiply-add
// on Sapphire Rapids.)

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
  using V = Vec<S, W>;
  using Bits = Vec<typename IntOf<sizeof(S)>::type, W>;

  // All bits set in the first n elements.
  static Bits Mask(int n) {
    Bits bits{};
    if constexpr (W > 1)
      for (int i = 0; i < W; ++i) bits[i] = i < n ? -1 : 0;
    return bits;
  }

  static SPARSEJAX_INLINE void Read(const S* p, V* part) { part[0] = Load<S, W>(p); }
  // The same with zeros outside `mask`.
  static SPARSEJAX_INLINE void Read(const S* p, Bits mask, V* part) {
    part[0] = BitCast<V>(BitCast<Bits>(Load<S, W>(p)) & mask);
  }
  static SPARSEJAX_INLINE void Write(S* p, const V* part) { Store<S, W>(p, part[0]); }
  static SPARSEJAX_INLINE void WriteLine(S* p, const V* part) { StoreLine<S, W>(p, part[0]); }
};

template <int W>
struct Packed<bfloat16, W> {
  static constexpr int kParts = 2, kLanes = W / 2;
  using V = Vec<float, kLanes>;
  using Bits = Vec<uint32_t, kLanes>;

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

  static SPARSEJAX_INLINE void Read(const bfloat16* p, V* part) { Split(Words(p), part); }
  static SPARSEJAX_INLINE void Read(const bfloat16* p, Bits mask, V* part) { Split(Words(p) & mask, part); }
  static SPARSEJAX_INLINE void Write(bfloat16* p, const V* part) {
    const Bits words = Join(part);
    __builtin_memcpy(p, &words, sizeof(words));
  }
  static SPARSEJAX_INLINE void WriteLine(bfloat16* p, const V* part) {
    StoreLine<uint32_t, kLanes>(reinterpret_cast<uint32_t*>(p), Join(part));
  }

 private:
  static SPARSEJAX_INLINE Bits Words(const bfloat16* p) {
    Bits words;
    __builtin_memcpy(&words, p, sizeof(words));
    return words;
  }
  static SPARSEJAX_INLINE void Split(Bits words, V* part) {
    if constexpr (sizeof(Bits) > 8) InRegister(words);
    part[0] = BitCast<V>(words << 16);
    part[1] = BitCast<V>(words & 0xffff0000u);
  }
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
  static constexpr int kParts = 1, kLanes = 1;
  using V = float;
  using Bits = int32_t;

  static Bits Mask(int) { return 0; }
  static SPARSEJAX_INLINE void Read(const bfloat16* p, V* part) { part[0] = Widen(*p); }
  static SPARSEJAX_INLINE void Read(const bfloat16* p, Bits, V* part) { Read(p, part); }
  static SPARSEJAX_INLINE void Write(bfloat16* p, const V* part) { Narrow(part[0], p); }
  static SPARSEJAX_INLINE void WriteLine(bfloat16*, const V*) {}
};
