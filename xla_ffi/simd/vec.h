// Vectors of a fixed number of lanes over GCC/Clang vector extensions: load, store, horizontal sum. Arithmetic uses
// the operators; `acc += w * v` becomes one fused multiply-add where the instruction set has it (-ffp-contract=fast).
// Included by per-ISA translation units only, inside their namespace: no standard headers beyond table.h's.
#ifndef SPARSEJAX_ISA_NAMESPACE
#error "include this file from kernels.cc, which names the instruction set"
#endif

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kMaxVecs = 16;  // of 32 registers; the others are for the broadcast value and for overlapping rows
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kMaxVecs = 12;  // of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kMaxVecs = 8;  // of 16 registers, because products need some without FMA (NEON has 32)
#endif

// Rows of an activation are short and far apart, which the processor's own prefetcher does not follow. So they are
// prefetched this many rows before they are used.
constexpr int kRowsAhead = 8;

#define SPARSEJAX_STRING2(x) #x
#define SPARSEJAX_STRING(x) SPARSEJAX_STRING2(x)

#define SPARSEJAX_INLINE inline __attribute__((always_inline))
#define SPARSEJAX_LAMBDA __attribute__((always_inline))

template <typename T, int W>
struct VecType {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <typename T>
struct VecType<T, 1> {
  typedef T type;
};
template <typename T, int W>
using Vec = typename VecType<T, W>::type;

template <typename T, int W>
SPARSEJAX_INLINE Vec<T, W> Load(const T* p) {
  Vec<T, W> v;
  __builtin_memcpy(&v, p, sizeof(v));  // unaligned; free on aligned addresses
  return v;
}

template <typename T, int W>
SPARSEJAX_INLINE void Store(T* p, Vec<T, W> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// Whether the vectors at p, and at multiples of `stride` and `other` elements from it, are whole cache lines. StoreLine
// writes these to memory around the caches, without reading them first. Parts of lines would be written one by one.
template <typename T, int W>
SPARSEJAX_INLINE bool AreLines([[maybe_unused]] const T* p, [[maybe_unused]] int64_t stride,
                               [[maybe_unused]] int64_t other) {
#if defined(__AVX512F__)
  const uint64_t all = reinterpret_cast<uintptr_t>(p) | static_cast<uint64_t>(stride | other) * sizeof(T);
  return sizeof(T) * W == 64 && all % 64 == 0;
#else
  return false;
#endif
}

template <typename T, int W>
SPARSEJAX_INLINE void StoreLine([[maybe_unused]] T* p, [[maybe_unused]] Vec<T, W> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) * W == 64) _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#endif
}

// Needed after the last StoreLine before another thread reads what it wrote.
SPARSEJAX_INLINE void FenceLines() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}

template <int kBytes>
struct IntOf {
  using type = int32_t;
};
template <>
struct IntOf<8> {
  using type = int64_t;
};

// Sum over lanes by halves: fixed order, log2(W) steps, in registers.
template <typename T>
SPARSEJAX_INLINE T SumLanes(Vec<T, 1> v) {
  return v;
}
template <typename T>
SPARSEJAX_INLINE T SumLanes(Vec<T, 2> v) {
  return v[0] + v[1];
}
template <typename T>
SPARSEJAX_INLINE T SumLanes(Vec<T, 4> v) {
  return SumLanes<T>(__builtin_shufflevector(v, v, 0, 1) + __builtin_shufflevector(v, v, 2, 3));
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> AddHalves(Vec<T, 8> v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 8> AddHalves(Vec<T, 16> v) {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
         __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
}
template <typename T, typename V>
SPARSEJAX_INLINE T SumLanes(V v) {
  return SumLanes<T>(AddHalves<T>(v));
}

// The lane sums of four vectors, as one vector of four. Additions and transposition are combined, so four sums take
// little longer than one.
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> SumLanes4(Vec<T, 1> a, Vec<T, 1> b, Vec<T, 1> c, Vec<T, 1> d) {
  return Vec<T, 4>{a, b, c, d};
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> SumLanes4(Vec<T, 2> a, Vec<T, 2> b, Vec<T, 2> c, Vec<T, 2> d) {
  const Vec<T, 4> ab = __builtin_shufflevector(a, b, 0, 1, 2, 3), cd = __builtin_shufflevector(c, d, 0, 1, 2, 3);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> SumLanes4(Vec<T, 4> a, Vec<T, 4> b, Vec<T, 4> c, Vec<T, 4> d) {
  const Vec<T, 4> ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Vec<T, 4> cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> SumLanes4(Vec<T, 8> a, Vec<T, 8> b, Vec<T, 8> c, Vec<T, 8> d) {
  const Vec<T, 8> ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 12, 13, 14, 15) +
                       __builtin_shufflevector(a, b, 4, 5, 6, 7, 8, 9, 10, 11);
  const Vec<T, 8> cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 12, 13, 14, 15) +
                       __builtin_shufflevector(c, d, 4, 5, 6, 7, 8, 9, 10, 11);
  const Vec<T, 8> acbd = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) +
                         __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  const Vec<T, 8> sums = acbd + __builtin_shufflevector(acbd, acbd, 1, 0, 3, 2, 5, 4, 7, 6);
  return __builtin_shufflevector(sums, sums, 0, 4, 2, 6);
}
template <typename T>
SPARSEJAX_INLINE Vec<T, 4> SumLanes4(Vec<T, 16> a, Vec<T, 16> b, Vec<T, 16> c, Vec<T, 16> d) {
  const auto fold = [](Vec<T, 16> x, Vec<T, 16> y) {  // x's eight sums, then y's
    return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31) +
           __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23);
  };
  const Vec<T, 16> ab = fold(a, b), cd = fold(c, d);
  Vec<T, 16> sums = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                    __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  sums += __builtin_shufflevector(sums, sums, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  sums += __builtin_shufflevector(sums, sums, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  return __builtin_shufflevector(sums, sums, 0, 4, 8, 12);
}
