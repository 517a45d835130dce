// Large pages for large buffers. Activations are hundreds of kilobytes per channel, read and written at large strides.
// With 4 KiB pages, a training step spends a fifth of its time on page faults and misses of the translation buffer.
#ifndef SPARSEJAX_RUNTIME_HUGE_PAGES_H_
#define SPARSEJAX_RUNTIME_HUGE_PAGES_H_

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sparsejax {

constexpr size_t kHugePage = size_t{2} << 20;  // bytes

// Asks the operating system to use large pages for memory that has no pages yet. This is advice only: contents do not
// change, and it may be ignored.
inline void AdviseHugePages(void* memory, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 4096;
  if (bytes < kHugePage) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kPage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_HUGE_PAGES_H_
