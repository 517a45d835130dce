// Sizes of caches, as the system reports them.
#ifndef SPARSEJAX_RUNTIME_CACHE_H_
#define SPARSEJAX_RUNTIME_CACHE_H_

#include <unistd.h>

#include <cstdint>

namespace sparsejax {

// Of one core; 1 MiB where the system does not report it.
inline int64_t SecondLevelCacheBytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return int64_t{1} << 20;
}

}  // namespace sparsejax

#endif  // SPARSEJAX_RUNTIME_CACHE_H_
