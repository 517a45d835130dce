// Measurements of the highest rates in this instruction set: fused multiply-adds in registers, and reading memory.
//
// ProbeFma: per iteration acc[q] = acc[q] * w + c for kMaxVecs independent accumulators of a full vector. That is the
// tile of the product kernels, so latency is hidden as well as it can be for them. The accumulators have different
// initial values, because the compiler would merge equal ones. w < 1 keeps them finite and normal. ProbeRead:
// kProbeSums partial sums over a run of floats, one load and one addition per vector. Both return a sum of all results,
// so the compiler cannot remove any of the work; without -ffast-math it cannot reorder additions either.

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
