// What the machine can do at most, in this instruction set: fused multiply-adds in registers, and reading memory.
//
// ProbeFma: per iteration acc[q] = acc[q] * w + c for kMaxVecs independent accumulators of a full vector, the tile of
// the product kernels, so that latency is hidden exactly where it can be hidden for them; they start apart, or the
// compiler would keep one. w < 1 keeps values finite and normal. ProbeRead: kProbeSums partial sums over a run of
// floats, one load and one addition per vector. Both end in a sum that the caller gets: nothing can be left out, because
// without -ffast-math no addition may be reordered.

constexpr int kProbeSums = 8;

inline float ProbeFma(int64_t iterations, float seed) {
  constexpr int kLanes = kVectorBytes / sizeof(float);
  using V = Vec<float, kLanes>;
  const V w = V{} + 0.999f * seed, c = V{} + 0.001f * seed;
  V acc[kMaxVecs];
#pragma GCC unroll 16
  for (int q = 0; q < kMaxVecs; ++q) acc[q] = V{} + seed * static_cast<float>(q + 1);
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int q = 0; q < kMaxVecs; ++q) acc[q] = acc[q] * w + c;
  }
  V sum = V{};
#pragma GCC unroll 16
  for (int q = 0; q < kMaxVecs; ++q) sum += acc[q];
  return SumLanes<float>(sum);
}

inline float ProbeRead(const float* x, int64_t n) {
  constexpr int kLanes = kVectorBytes / sizeof(float);
  using V = Vec<float, kLanes>;
  V acc[kProbeSums];
#pragma GCC unroll 16
  for (int q = 0; q < kProbeSums; ++q) acc[q] = V{};
  for (int64_t i = 0; i + kProbeSums * kLanes <= n; i += kProbeSums * kLanes) {
#pragma GCC unroll 16
    for (int q = 0; q < kProbeSums; ++q) acc[q] += Load<float, kLanes>(x + i + q * kLanes);
  }
  V sum = V{};
#pragma GCC unroll 16
  for (int q = 0; q < kProbeSums; ++q) sum += acc[q];
  return SumLanes<float>(sum);
}
