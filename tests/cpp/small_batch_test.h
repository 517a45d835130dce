// The kernels of a batch of one and two, with gathers and with a load for each lane: a processor uses one of the two,
// so both are compared with sums in double here.
#ifndef SPARSEJAX_TESTS_CPP_SMALL_BATCH_TEST_H_
#define SPARSEJAX_TESTS_CPP_SMALL_BATCH_TEST_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../xla_ffi/handlers/types.h"

namespace sparsejax::testing {

// A value that bfloat16 has, so that S and double agree on it.
template <typename S>
S ExactValue(double value) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    const float f = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof(bits));
    return {static_cast<uint16_t>(bits >> 16)};
  } else {
    return static_cast<S>(value);
  }
}

// Rows of 0 to 40 entries. Empty if the kernel is right: about each row, and about an index out of range in the last
// row.
template <typename S>
std::string SmallBatchFault(bool (*kernel)(const SmallBatchArgs<S>&), int examples) {
  constexpr int64_t kFeatures = 37, kRows = 41;
  std::mt19937 random(examples);
  std::vector<int32_t> row_ptr = {0}, indices;
  std::vector<double> values;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t e = 0; e < r; ++e) {
      indices.push_back(static_cast<int32_t>(random() % kFeatures));
      values.push_back(static_cast<double>(random() % 15) - 7);
    }
    row_ptr.push_back(static_cast<int32_t>(indices.size()));
  }
  std::vector<S> data, y(kRows * examples);
  std::vector<Sum<S>> x(kFeatures * examples);
  for (const double v : values) data.push_back(ExactValue<S>(v));
  for (auto& v : x) v = static_cast<Sum<S>>(static_cast<double>(random() % 15) - 7);
  SmallBatchArgs<S> args{row_ptr.data(), indices.data(), kFeatures, 0, kRows, data.data(), x.data(), y.data()};
  if (!kernel(args)) return "refused indices in range";
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t b = 0; b < examples; ++b) {
      double sum = 0;
      for (int64_t e = row_ptr[r]; e < row_ptr[r + 1]; ++e)
        sum += values[e] * static_cast<double>(x[indices[e] * examples + b]);
      double got;
      if constexpr (std::is_same_v<S, bfloat16>) {
        const uint32_t bits = static_cast<uint32_t>(y[r * examples + b].bits) << 16;
        float f;
        std::memcpy(&f, &bits, sizeof(f));
        got = f;
      } else {
        got = static_cast<double>(y[r * examples + b]);
      }
      if (std::abs(got - sum) > std::abs(sum) / 256) return "row of " + std::to_string(r) + " entries is wrong";
    }
  for (size_t e = row_ptr[kRows - 1]; e < indices.size(); ++e) {
    const int32_t index = std::exchange(indices[e], e % 2 != 0 ? -1 : static_cast<int32_t>(kFeatures));
    if (kernel(args)) return "took an index out of range";
    indices[e] = index;
  }
  return "";
}

template <typename S>
std::string SmallBatchFaults() {
  const auto& k = Element<S>::Products();
  for (const int i : {0, 1})
    for (const auto kernel : {k.small_batch[i], k.small_batch_loads[i]})
      if (kernel != nullptr)
        if (const std::string fault = SmallBatchFault<S>(kernel, 1 << i); !fault.empty()) return fault;
  return "";
}

}  // namespace sparsejax::testing

#endif  // SPARSEJAX_TESTS_CPP_SMALL_BATCH_TEST_H_
