// For tests: results are filled with NaNs before a handler computes them, so an element that it does not write is
// noticed. The environment variable SPARSEJAX_POISON, if it is set and not empty, switches this on.
#ifndef SPARSEJAX_RUNTIME_POISON_H_
#define SPARSEJAX_RUNTIME_POISON_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace sparsejax {

inline bool IsPoisonOn() {
  static const bool is_on = [] {
    const char* value = std::getenv("SPARSEJAX_POISON");
    return value != nullptr && *value != '\0';
  }();
  return is_on;
}

// Fills the memory with 16-bit numbers that are NaN as bfloat16, and in twos and fours as float32 and float64.
// Consecutive calls use different NaNs, so two calls of a handler give different bits where a result is not written.
inline void Poison(void* memory, size_t bytes) {
  static std::atomic<unsigned> calls{0};
  constexpr unsigned kNaN = 0xfff0, kPayloads = 16;
  const auto pattern = static_cast<uint16_t>(kNaN | calls++ % kPayloads);
  char* at = static_cast<char*>(memory);
  for (size_t i = 0; i < bytes; i += sizeof(pattern))
    std::memcpy(at + i, &pattern, bytes - i < sizeof(pattern) ? bytes - i : sizeof(pattern));
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_POISON_H_
