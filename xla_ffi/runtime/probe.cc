#include "probe.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <vector>

#include "isa.h"

namespace sparsejax {
namespace {

// Long compared with the clock's resolution, short compared with the time between two interrupts by the system.
constexpr double kSliceSeconds = 2e-3;
constexpr double kMostSeconds = 60;
constexpr int64_t kMostBytes = int64_t{1} << 34;
constexpr size_t kCacheLine = 64;
constexpr int64_t kFloatsPerStep = 128;  // the largest step of ProbeRead's loop

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The highest rate of a slice, where run(work) does work * amount. `work` is doubled until a slice is long enough; then
// slices are measured until `seconds` have passed.
template <typename Run>
double BestRate(double seconds, double amount, const Run& run) {
  if (!(seconds > 0 && seconds <= kMostSeconds)) {
    throw std::invalid_argument("probe: seconds has a value out of range; expected more than 0 and at most 60.");
  }
  int64_t work = 1;
  double best = 0;
  for (const double end = Now() + seconds; best == 0 || Now() < end;) {
    const double start = Now();
    run(work);
    const double taken = Now() - start;
    if (taken < kSliceSeconds) {
      work *= 2;
    } else {
      best = std::max(best, amount * static_cast<double>(work) / taken);
    }
  }
  return best;
}

volatile float sink;  // results are stored here, so that the compiler cannot remove their computation

}  // namespace

double FmaRate(double seconds) {
  const ProbeKernels& probe = Table().probe;
  return BestRate(seconds, probe.flops_per_iteration, [&](int64_t work) { sink = probe.fma(work, 1.0f); });
}

double ReadRate(int64_t bytes, double seconds) {
  const int64_t step = kFloatsPerStep * static_cast<int64_t>(sizeof(float));
  if (bytes < 1 || bytes > kMostBytes) {
    throw std::invalid_argument("probe: bytes has a value out of range; expected at least 1 and at most 2**34.");
  }
  const int64_t floats = (bytes + step - 1) / step * kFloatsPerStep;
  // Aligned by hand: a vector that crosses a cache line costs two accesses.
  std::vector<float> buffer(static_cast<size_t>(floats) + kCacheLine / sizeof(float), 1.0f);
  void* start = buffer.data();
  size_t room = buffer.size() * sizeof(float);
  const auto* x = static_cast<const float*>(std::align(kCacheLine, room - kCacheLine, start, room));
  return BestRate(seconds, static_cast<double>(floats) * sizeof(float), [&](int64_t work) {
    for (int64_t i = 0; i < work; ++i) sink = Table().probe.read(x, floats);
  });
}

}  // namespace sparsejax
